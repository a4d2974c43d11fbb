:INPUT,FORWARD
-m physdev --physdev-in eth0 ; = ; OK
-m physdev ! --physdev-in eth+ ; = ; OK
-m physdev --physdev-in eth0 --physdev-is-in ; -m physdev --physdev-is-in --physdev-in eth0 ; OK
-m physdev --physdev-is-in ; = ; OK
-m physdev ! --physdev-is-in ; = ; OK
-m physdev --physdev-in abcdefghijklmno ; = ; OK
-m physdev --physdev-in abcdefghijklmnop ; ; FAIL
-m physdev --physdev-in a --physdev-in b ; ; FAIL
-m physdev --physdev-is-in --physdev-is-in ; ; FAIL
-m physdev --physdev-is-out 1 ; ; FAIL
-m physdev --physdev-out abcdefghijklmnop ; ; FAIL
-m physdev ; ; FAIL
:FORWARD
-m physdev --physdev-out eth0 --physdev-is-bridged ; = ; OK
-m physdev --physdev-is-bridged --physdev-out eth0 ; -m physdev --physdev-out eth0 --physdev-is-bridged ; OK
-m physdev --physdev-is-bridged --physdev-is-out ; -m physdev --physdev-is-out --physdev-is-bridged ; OK
-m physdev ! --physdev-is-bridged ; = ; OK
-m physdev --physdev-is-out ; = ; OK
-m physdev --physdev-out eth+ ; = ; OK
-m physdev --physdev-in eth0 --physdev-is-in --physdev-out eth1 --physdev-is-out --physdev-is-bridged ; -m physdev --physdev-is-in --physdev-in eth0 --physdev-is-out --physdev-out eth1 --physdev-is-bridged ; OK
-m physdev ! --physdev-out eth0 ! --physdev-is-out ; -m physdev ! --physdev-is-out ! --physdev-out eth0 ; OK
-m physdev --physdev-is-bridged --physdev-is-bridged ; ; FAIL
:OUTPUT
-m physdev --physdev-out eth0 ; ; FAIL
-m physdev --physdev-is-out ; ; FAIL
-m physdev --physdev-out eth0 ! --physdev-is-bridged ; ; FAIL
-m physdev --physdev-out eth0 --physdev-is-bridged ; = ; OK
