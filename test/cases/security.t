# The table of security marks takes rules like any other.
*security
:INPUT,FORWARD,OUTPUT
-j ACCEPT ; = ; OK
-p tcp --dport 22 -j DROP ; -p tcp -m tcp --dport 22 -j DROP ; OK
-j REJECT ; ; FAIL
-j TTL --ttl-set 1 ; ; FAIL
:PREROUTING,POSTROUTING
-j ACCEPT ; ; FAIL
