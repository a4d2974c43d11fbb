*raw
:PREROUTING,OUTPUT
-j TRACE ; = ; OK
-j TRACE --x ; ; FAIL
*mangle
:PREROUTING
-j TRACE ; ; FAIL
