:INPUT,FORWARD
-p tcp -j SYNPROXY ; = ; OK
-p tcp -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460 --ecn ; = ; OK
-p tcp -j SYNPROXY --ecn --mss 0x10 --wscale 0xe --timestamp --sack-perm ; -p tcp -j SYNPROXY --sack-perm --timestamp --wscale 14 --mss 16 --ecn ; OK
-p tcp -j SYNPROXY --mss 65536 ; -p tcp -j SYNPROXY --mss 0 ; OK
-p tcp -j SYNPROXY --wscale x ; ; FAIL
-p tcp -j SYNPROXY --mss x ; ; FAIL
-p tcp -j SYNPROXY --sack-perm --sack-perm ; ; FAIL
-p tcp -j SYNPROXY --timestamp --timestamp ; ; FAIL
-p tcp -j SYNPROXY --ecn --ecn ; ; FAIL
-j SYNPROXY --ecn ; ; FAIL
:OUTPUT
-p tcp -j SYNPROXY --ecn ; ; FAIL
