:INPUT,FORWARD,OUTPUT
-m realm --realm 0x1/0x2a ; = ; OK
-m realm --realm 10 ; -m realm --realm 0xa ; OK
-m realm ! --realm 0x1 ; = ; OK
-m realm --realm 0xffffffff/0xffffffff ; -m realm --realm 0xffffffff ; OK
-m realm --realm 1/ ; ; FAIL
-m realm --realm nosuchrealm ; ; FAIL
-m realm --realm 1/x ; ; FAIL
-m realm ; ; FAIL
*mangle
:PREROUTING
-m realm --realm 1 ; ; FAIL
