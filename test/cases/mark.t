:INPUT
-m mark --mark 0x2f ; = ; OK
-m mark --mark 47 ; -m mark --mark 0x2f ; OK
-m mark --mark 0x1/0xff ; = ; OK
-m mark --mark 1/255 ; -m mark --mark 0x1/0xff ; OK
-m mark --mark 1/0xffffffff ; -m mark --mark 0x1 ; OK
-m mark ! --mark 0x1 ; = ; OK
-m mark --mark 0xffffffff ; = ; OK
-m mark --mark 4294967296 ; ; FAIL
-m mark --mark 1/ ; ; FAIL
-m mark --mark -1 ; ; FAIL
-m mark ; ; FAIL
*mangle
:PREROUTING,OUTPUT
-j MARK --set-xmark 0x1/0xff ; = ; OK
-j MARK --set-xmark 1 ; -j MARK --set-xmark 0x1/0xffffffff ; OK
-j MARK --set-mark 47 ; -j MARK --set-xmark 0x2f/0xffffffff ; OK
-j MARK --set-mark 1/2 ; -j MARK --set-xmark 0x1/0x3 ; OK
-j MARK --and-mark 1 ; -j MARK --set-xmark 0x0/0xfffffffe ; OK
-j MARK --or-mark 0x10 ; -j MARK --set-xmark 0x10/0x10 ; OK
-j MARK --xor-mark 3 ; -j MARK --set-xmark 0x3/0x0 ; OK
-j MARK --mark 47 ; ; FAIL
-j MARK ; ; FAIL
-j MARK --set-mark x ; ; FAIL
-j MARK --set-xmark 1/x ; ; FAIL
-j MARK --and-mark 4294967296 ; ; FAIL
-j MARK --or-mark -1 ; ; FAIL
-j MARK --xor-mark 1/1 ; ; FAIL
-j MARK --set-mark 1 --or-mark 1 ; ; FAIL
*filter
:INPUT
-j MARK --set-mark 1 ; -j MARK --set-xmark 0x1/0xffffffff ; OK
