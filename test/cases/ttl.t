:INPUT,FORWARD,OUTPUT
-m ttl --ttl-eq 0 ; = ; OK
-m ttl --ttl-eq 0xff ; -m ttl --ttl-eq 255 ; OK
-m ttl ! --ttl-eq 1 ; = ; OK
-m ttl --ttl 64 ; -m ttl --ttl-eq 64 ; OK
-m ttl --ttl-lt 3 ; = ; OK
-m ttl --ttl-lt 010 ; -m ttl --ttl-lt 8 ; OK
-m ttl --ttl-gt 3 ; = ; OK
-m ttl --ttl-gt 0x3 ; -m ttl --ttl-gt 3 ; OK
-m ttl --ttl-eq 256 ; ; FAIL
-m ttl --ttl 256 ; ; FAIL
-m ttl ! --ttl 5 ; -m ttl ! --ttl-eq 5 ; OK
-m ttl ! --ttl-lt 5 ; ; FAIL
-m ttl ! --ttl-gt 5 ; ; FAIL
-m ttl --ttl-eq 1 --ttl 1 ; ; FAIL
-m ttl --ttl-eq 1 --ttl-lt 4 ; ; FAIL
-m ttl --ttl-gt 1 --ttl-lt 4 ; ; FAIL
-m ttl --ttl-gt x ; ; FAIL
-m ttl ; ; FAIL
*mangle
:PREROUTING,FORWARD,POSTROUTING
-j TTL --ttl-set 0 ; = ; OK
-j TTL --ttl-set 0xff ; -j TTL --ttl-set 255 ; OK
-j TTL --ttl-set 256 ; ; FAIL
-j TTL --ttl-dec 1 ; = ; OK
-j TTL --ttl-dec 010 ; -j TTL --ttl-dec 8 ; OK
-j TTL --ttl-dec 0 ; ; FAIL
-j TTL --ttl-inc 255 ; = ; OK
-j TTL --ttl-inc 0x10 ; -j TTL --ttl-inc 16 ; OK
-j TTL --ttl-inc 0 ; ; FAIL
-j TTL --ttl-inc 1 --ttl-dec 1 ; ; FAIL
-j TTL ; ; FAIL
*filter
:FORWARD
-j TTL --ttl-set 1 ; ; FAIL
