:INPUT
? needs a kernel before 3.17
-j ULOG ; = ; OK
-j ULOG --ulog-prefix fw --ulog-nlgroup 32 --ulog-cprange 48 --ulog-qthreshold 50 ; = ; OK
-j ULOG --ulog-qthreshold 0x2 --ulog-cprange 010 --ulog-nlgroup 02 --ulog-prefix "a b" ; -j ULOG --ulog-prefix "a b" --ulog-nlgroup 2 --ulog-cprange 8 --ulog-qthreshold 2 ; OK
-j ULOG --ulog-prefix 0123456789012345678901234567890123 ; -j ULOG --ulog-prefix 0123456789012345678901234567890 ; OK
-j ULOG --ulog-nlgroup 1 --ulog-qthreshold 1 --ulog-cprange 0 ; -j ULOG ; OK
:INPUT
-j ULOG --ulog-nlgroup 0 ; ; FAIL
-j ULOG --ulog-nlgroup 33 ; ; FAIL
-j ULOG --ulog-prefix "" ; ; FAIL
-j ULOG --ulog-cprange -1 ; ; FAIL
-j ULOG --ulog-qthreshold 0 ; ; FAIL
-j ULOG --ulog-qthreshold 51 ; ; FAIL
