:INPUT,FORWARD
-m mac --mac-source 42:01:02:03:04:05 ; = ; OK
-m mac ! --mac-source 00:00:00:00:00:00 ; = ; OK
-m mac --mac-source AA:bb:Cc:0:1:2 ; -m mac --mac-source aa:bb:cc:00:01:02 ; OK
-m mac --mac-source 1:2:3:4:5:6 ; -m mac --mac-source 01:02:03:04:05:06 ; OK
-m mac --mac-source 42:01:02:03:04 ; ; FAIL
-m mac --mac-source 42:01:02:03:04:05:06 ; ; FAIL
-m mac --mac-source 42:01:02:03:04:0g ; ; FAIL
-m mac --mac-source 42:01:02:03:04:100 ; ; FAIL
-m mac --mac-source 420102030405 ; ; FAIL
-m mac --mac-source ; ; FAIL
-m mac ; ; FAIL
:OUTPUT
-m mac --mac-source 42:01:02:03:04:05 ; ; FAIL
*mangle
:PREROUTING
-m mac --mac-source 42:01:02:03:04:05 ; = ; OK
:POSTROUTING
-m mac --mac-source 42:01:02:03:04:05 ; ; FAIL
