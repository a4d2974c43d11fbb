*mangle
:INPUT,PREROUTING
-j CONNSECMARK --save ; = ; OK
-j CONNSECMARK --restore ; = ; OK
-j CONNSECMARK --sav ; -j CONNSECMARK --save ; OK
-j CONNSECMARK --save -m mark --mark 0x1 ; -m mark --mark 0x1 -j CONNSECMARK --save ; OK
-j CONNSECMARK --restore -m mark --mark 0x1 ; -m mark --mark 0x1 -j CONNSECMARK --restore ; OK
-j CONNSECMARK --save --restore ; ; FAIL
-j CONNSECMARK ; ; FAIL
*security
:INPUT,OUTPUT
-j CONNSECMARK --save ; = ; OK
*filter
:INPUT
-j CONNSECMARK --save ; ; FAIL
