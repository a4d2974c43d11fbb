:INPUT,FORWARD
-m devgroup --src-group 0x9 ; = ; OK
-m devgroup --src-group 5/7 ; -m devgroup --src-group 0x5/0x7 ; OK
-m devgroup ! --src-group 0x5 ; = ; OK
-m devgroup --src-group nosuchgroup ; ; FAIL
-m devgroup ; ; FAIL
:FORWARD,OUTPUT
-m devgroup --dst-group 0x1 ; = ; OK
-m devgroup ! --dst-group 1/0xff ; -m devgroup ! --dst-group 0x1/0xff ; OK
-m devgroup --dst-group 1/ ; ; FAIL
:FORWARD
-m devgroup --dst-group 0x2 --src-group 0x1 ; -m devgroup --src-group 0x1 --dst-group 0x2 ; OK
:INPUT
-m devgroup --dst-group 0x1 ; ; FAIL
:OUTPUT
-m devgroup --src-group 0x1 ; ; FAIL
