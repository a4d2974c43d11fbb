:INPUT,FORWARD
-p tcp -m osf --genre Linux ; = ; OK
-p tcp -m osf ! --genre Linux --ttl 0 --log 2 ; = ; OK
-p tcp -m osf --log 0x1 --ttl 0x2 --genre FreeBSD ; -p tcp -m osf --genre FreeBSD --ttl 2 --log 1 ; OK
-p tcp -m osf --genre aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ; -p tcp -m osf --genre aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ; OK
-p tcp -m osf --genre Linux --ttl 3 ; ; FAIL
-p tcp -m osf --genre Linux --log 3 ; ; FAIL
-p tcp -m osf --genre Linux --genre Linux ; ; FAIL
-p tcp -m osf ; ; FAIL
-m osf --genre Linux ; ; FAIL
-p udp -m osf --genre Linux ; ; FAIL
:OUTPUT
-p tcp -m osf --genre Linux ; ; FAIL
