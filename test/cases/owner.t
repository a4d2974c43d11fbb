:OUTPUT
-m owner --uid-owner 0 ; = ; OK
-m owner --uid-owner root ; -m owner --uid-owner 0 ; OK
-m owner --uid-owner 0x10 ; -m owner --uid-owner 16 ; OK
-m owner --uid-owner 0-10 ; = ; OK
-m owner --uid-owner 0:10 ; -m owner --uid-owner 0-10 ; OK
-m owner --uid-owner 5-5 ; -m owner --uid-owner 5 ; OK
-m owner ! --uid-owner 1000-2000 ; = ; OK
-m owner --uid-owner 4294967294 ; = ; OK
-m owner --uid-owner 4294967295 ; ; FAIL
-m owner --uid-owner 10-5 ; ; FAIL
-m owner --uid-owner 5- ; ; FAIL
-m owner --uid-owner -5 ; ; FAIL
-m owner --uid-owner 5+6 ; ; FAIL
-m owner --uid-owner 5-6-7 ; ; FAIL
-m owner --uid-owner wrong ; ; FAIL
-m owner --uid-owner "" ; ; FAIL
-m owner --uid-owner root-daemon ; ; FAIL
-m owner --uid-owner 1 --uid-owner 2 ; ; FAIL
-m owner --gid-owner 0 ; = ; OK
-m owner --gid-owner root ; -m owner --gid-owner 0 ; OK
-m owner --gid-owner 0:10 ; -m owner --gid-owner 0-10 ; OK
-m owner ! --gid-owner 0-10 ; = ; OK
-m owner --gid-owner wrong ; ; FAIL
-m owner --gid-owner 10-5 ; ; FAIL
-m owner --gid-owner 4294967295 ; ; FAIL
-m owner --uid-owner 0-10 --gid-owner 0-10 ; = ; OK
-m owner --gid-owner 1 --uid-owner 2 ; -m owner --uid-owner 2 --gid-owner 1 ; OK
-m owner --socket-exists ; = ; OK
-m owner ! --socket-exists ; = ; OK
-m owner --uid-owner 1 --socket-exists ; -m owner --socket-exists --uid-owner 1 ; OK
-m owner --socket-exists 1 ; ; FAIL
-m owner --gid-owner 1 --suppl-groups ; = ; OK
-m owner --gid-owner 1 --suppl-groups --uid-owner 2 ; -m owner --uid-owner 2 --gid-owner 1 --suppl-groups ; OK
-m owner --suppl-groups ; ; FAIL
-m owner --suppl-groups --gid-owner 1 ; ; FAIL
-m owner --gid-owner 1 ! --suppl-groups ; ; FAIL
-m owner ; ; FAIL
:INPUT,FORWARD
-m owner --uid-owner root ; ; FAIL
-m owner --socket-exists ; ; FAIL
*mangle
:POSTROUTING
-m owner --gid-owner 7 ; = ; OK
:PREROUTING
-m owner --gid-owner 7 ; ; FAIL
