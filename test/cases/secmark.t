# Contexts that are known depend on the policy of the judge's kernel; what is refused does not.
*security
:INPUT,FORWARD,OUTPUT
? needs SELinux
-j SECMARK --selctx system_u:object_r:net_t:s0 ; = ; OK
-j SECMARK --selctx=a:b:c ; -j SECMARK --selctx a:b:c ; OK
*mangle
:PREROUTING
? needs SELinux
-j SECMARK --selctx a:b:c ; = ; OK
:INPUT
-j SECMARK ; ; FAIL
-j SECMARK --selctx a:b:c --selctx a:b:c ; ; FAIL
*filter
:INPUT
-j SECMARK --selctx a:b:c ; ; FAIL
