*raw
:PREROUTING,OUTPUT
-j CT ; = ; OK
-j CT --notrack ; = ; OK
-j CT --zone 1 --notrack ; -j CT --notrack --zone 1 ; OK
-j CT --notrack --notrack ; ; FAIL
-p tcp -j CT --helper ftp ; = ; OK
-p udp -j CT --helper tftp ; = ; OK
-p udp -j CT --helper amanda ; = ; OK
-p tcp -j CT --helper sane ; = ; OK
-p tcp -j CT --helper pptp ; = ; OK
-p 6 -j CT --helper irc ; -p tcp -j CT --helper irc ; OK
-j CT --helper ftp ; ; FAIL
-p udp -j CT --helper ftp ; ; FAIL
! -p tcp -j CT --helper ftp ; ; FAIL
-p tcp -j CT --helper nosuch ; ; FAIL
-j CT --notrack --helper ftp ; = ; OK
-j CT --notrack --timeout fast ; = ; OK
-j CT --timeout short --notrack ; -j CT --notrack --timeout shor ; OK
-p tcp -j CT --timeout short ; ; FAIL
-j CT --ctevents new ; = ; OK
-j CT --ctevents destroy,new ; -j CT --ctevents new,destroy ; OK
-j CT --ctevents new,related,destroy,reply,assured,protoinfo,helper,mark,natseqinfo,secmark ; = ; OK
-j CT --ctevents new, ; ; FAIL
-j CT --ctevents NEW ; ; FAIL
-j CT --expevents new ; = ; OK
-j CT --expevents new,new ; -j CT --expevents new ; OK
-j CT --expevents destroy ; ; FAIL
-j CT --zone 1 ; = ; OK
-j CT --zone 0xffff ; -j CT --zone 65535 ; OK
-j CT --zone mark ; = ; OK
-j CT --zone 0 ; -j CT ; OK
-j CT --zone 65536 ; ; FAIL
-j CT --zone x ; ; FAIL
-j CT --zone-orig 1 ; = ; OK
-j CT --zone-orig mark ; = ; OK
-j CT --zone-orig 0x2 ; -j CT --zone-orig 2 ; OK
-j CT --zone-orig "" ; ; FAIL
-j CT --zone-reply mark ; = ; OK
-j CT --zone-reply 0x3 ; -j CT --zone-reply 3 ; OK
-j CT --zone-reply 65536 ; ; FAIL
-p tcp -j CT --zone 5 --expevents new --ctevents new --helper ftp ; -p tcp -j CT --helper ftp --ctevents new --expevents new --zone 5 ; OK
-j NOTRACK ; = ; OK
-j NOTRACK --zone 1 ; ; FAIL
*mangle
:PREROUTING
-j CT --notrack ; ; FAIL
-j NOTRACK ; ; FAIL
