:INPUT,FORWARD,OUTPUT
-m addrtype --src-type UNICAST ; = ; OK
-m addrtype --src-type local ; -m addrtype --src-type LOCAL ; OK
-m addrtype --src-type unspec,UNI,loc,br,an,mu,bl,unr,p,t,n,x ; -m addrtype --src-type UNSPEC,UNICAST,LOCAL,BROADCAST,ANYCAST,MULTICAST,BLACKHOLE,UNREACHABLE,PROHIBIT,THROW,NAT,XRESOLVE ; OK
-m addrtype --src-type un ; -m addrtype --src-type UNSPEC ; OK
-m addrtype ! --src-type LOCAL,BROADCAST ; = ; OK
-m addrtype --dst-type MULTICAST,LOCAL ; -m addrtype --dst-type LOCAL,MULTICAST ; OK
-m addrtype ! --dst-type NAT ; = ; OK
-m addrtype --dst-type LOCAL --src-type UNICAST ; -m addrtype --src-type UNICAST --dst-type LOCAL ; OK
-m addrtype ! --src-type UNICAST ! --dst-type LOCAL ; = ; OK
-m addrtype --src-type ; ; FAIL
-m addrtype --src-type "" ; ; FAIL
-m addrtype --src-type ANYTHING ; ; FAIL
-m addrtype --src-type LOCAL, ; ; FAIL
-m addrtype --src-type ,LOCAL ; ; FAIL
-m addrtype --src-type LOCAL,WAN,NAT ; ; FAIL
-m addrtype --src-type LOCAL --src-type UNICAST ; ; FAIL
-m addrtype --dst-type WAN ; ; FAIL
-m addrtype ; ; FAIL
-m addrtype --limit-iface-in ; ; FAIL
-m addrtype --limit-iface-out ; ; FAIL
-m addrtype --src-type LOCAL --limit-iface-in --limit-iface-out ; ; FAIL
-m addrtype --src-type LOCAL ! --limit-iface-in ; ; FAIL
:INPUT,FORWARD
-m addrtype --src-type LOCAL --limit-iface-in ; = ; OK
-m addrtype --limit-iface-in --dst-type LOCAL ; -m addrtype --dst-type LOCAL --limit-iface-in ; OK
:OUTPUT,FORWARD
-m addrtype --dst-type LOCAL --limit-iface-out ; = ; OK
-m addrtype --limit-iface-out --src-type LOCAL ; -m addrtype --src-type LOCAL --limit-iface-out ; OK
:OUTPUT
-m addrtype --src-type LOCAL --limit-iface-in ; ; FAIL
:INPUT
-m addrtype --src-type LOCAL --limit-iface-out ; ; FAIL
*mangle
:PREROUTING
-m addrtype --src-type LOCAL --limit-iface-out ; ; FAIL
:POSTROUTING
-m addrtype --src-type LOCAL --limit-iface-in ; ; FAIL
