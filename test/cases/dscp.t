:INPUT,FORWARD,OUTPUT
-m dscp --dscp 0x00 ; = ; OK
-m dscp --dscp 63 ; -m dscp --dscp 0x3f ; OK
-m dscp ! --dscp 0x20 ; = ; OK
-m dscp --dscp 64 ; ; FAIL
-m dscp --dscp EF ; ; FAIL
-m dscp --dscp-class EF ; -m dscp --dscp 0x2e ; OK
-m dscp --dscp-class be ; -m dscp --dscp 0x00 ; OK
-m dscp --dscp-class AF32 ; -m dscp --dscp 0x1c ; OK
-m dscp ! --dscp-class cs7 ; -m dscp ! --dscp 0x38 ; OK
-m dscp --dscp-class af11xyz ; -m dscp --dscp 0x0a ; OK
-m dscp --dscp-class AF44 ; ; FAIL
-m dscp --dscp-class "" ; ; FAIL
-m dscp --dscp 1 --dscp-class EF ; ; FAIL
-m dscp ; ; FAIL
*mangle
:PREROUTING,INPUT,FORWARD,OUTPUT,POSTROUTING
-j DSCP --set-dscp 0x00 ; = ; OK
-j DSCP --set-dscp 63 ; -j DSCP --set-dscp 0x3f ; OK
-j DSCP --set-dscp 64 ; ; FAIL
-j DSCP --set-dscp-class ef ; -j DSCP --set-dscp 0x2e ; OK
-j DSCP --set-dscp-class AF11x ; -j DSCP --set-dscp 0x0a ; OK
-j DSCP --set-dscp-class zz ; ; FAIL
-j DSCP --set-dscp 1 --set-dscp-class EF ; ; FAIL
-j DSCP ; ; FAIL
*filter
:FORWARD
-j DSCP --set-dscp 1 ; ; FAIL
