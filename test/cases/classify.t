*mangle
:FORWARD,OUTPUT,POSTROUTING
-j CLASSIFY --set-class 0000:ffff ; = ; OK
-j CLASSIFY --set-class 1:10 ; -j CLASSIFY --set-class 0001:0010 ; OK
-j CLASSIFY --set-class 0x1:0x2 ; -j CLASSIFY --set-class 0001:0002 ; OK
-j CLASSIFY --set-class 1ffff:10000 ; -j CLASSIFY --set-class ffff:0000 ; OK
-j CLASSIFY --set-class 1:2x ; -j CLASSIFY --set-class 0001:0002 ; OK
-j CLASSIFY --set-class -1:-1 ; -j CLASSIFY --set-class ffff:ffff ; OK
-j CLASSIFY --set-class 1 ; ; FAIL
-j CLASSIFY --set-class :1 ; ; FAIL
-j CLASSIFY --set-class 1: ; ; FAIL
-j CLASSIFY --set-class x:y ; ; FAIL
-j CLASSIFY ; ; FAIL
:PREROUTING,INPUT
-j CLASSIFY --set-class 1:2 ; ; FAIL
