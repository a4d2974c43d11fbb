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
*filter
:INPUT,FORWARD,OUTPUT
-m tos --tos 0x10/0x3f ; = ; OK
-m tos --tos Maximize-Throughput ; -m tos --tos 0x08/0x3f ; OK
-m tos --tos normal-service ; -m tos --tos 0x00/0x3f ; OK
-m tos ! --tos 0x04 ; -m tos ! --tos 0x04/0xff ; OK
-m tos --tos 255/255 ; -m tos --tos 0xff/0xff ; OK
-m tos --tos 0x10/0x0f ; = ; OK
-m tos --tos 256 ; ; FAIL
-m tos --tos 1/256 ; ; FAIL
-m tos --tos 1/ ; ; FAIL
-m tos --tos Minimize ; ; FAIL
-m tos --tos "" ; ; FAIL
-m tos ; ; FAIL
