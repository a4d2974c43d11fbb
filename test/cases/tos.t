*mangle
:PREROUTING,INPUT,FORWARD,OUTPUT,POSTROUTING
-j TOS --set-tos 0x10/0x3f ; = ; OK
-j TOS --set-tos Minimize-Cost ; -j TOS --set-tos 0x02/0x3f ; OK
-j TOS --set-tos minimize-delay ; -j TOS --set-tos 0x10/0x3f ; OK
-j TOS --set-tos Normal-Service ; -j TOS --set-tos 0x00/0x3f ; OK
-j TOS --set-tos 16 ; -j TOS --set-tos 0x10/0xff ; OK
-j TOS --set-tos 0xff/0xff ; = ; OK
-j TOS --set-tos 256 ; ; FAIL
-j TOS --set-tos 1/256 ; ; FAIL
-j TOS --set-tos nosuch ; ; FAIL
-j TOS --and-tos 0x12 ; -j TOS --set-tos 0x00/0xed ; OK
-j TOS --or-tos 0x12 ; -j TOS --set-tos 0x12/0x12 ; OK
-j TOS --xor-tos 0x12 ; -j TOS --set-tos 0x12/0x00 ; OK
-j TOS --and-tos 256 ; ; FAIL
-j TOS --or-tos x ; ; FAIL
-j TOS --xor-tos -1 ; ; FAIL
-j TOS --set-tos 1 --or-tos 1 ; ; FAIL
-j TOS ; ; FAIL
*filter
:INPUT
-j TOS --set-tos 1 ; ; FAIL
