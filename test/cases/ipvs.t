:INPUT
? this kernel may lack xt_ipvs
-m ipvs --ipvs ; = ; OK
-m ipvs ! --ipvs ; = ; OK
-m ipvs --ipvs --vport 80 ; -m ipvs --vport 80 ; OK
-m ipvs --vproto tcp ; -m ipvs --vproto 6 ; OK
-m ipvs ! --vproto 6 ; = ; OK
-m ipvs --vaddr 1.2.3.4/255.255.255.0 ; -m ipvs --vaddr 1.2.3.4/24 ; OK
-m ipvs ! --vaddr 1.2.3.4 ; = ; OK
-m ipvs --vport http ; -m ipvs --vport 80 ; OK
-m ipvs --vdir REPLY ; = ; OK
-m ipvs --vdir original ; -m ipvs --vdir ORIGINAL ; OK
-m ipvs --vmethod GATE ; = ; OK
-m ipvs ! --vmethod ipip ; -m ipvs ! --vmethod IPIP ; OK
-m ipvs --vportctl 21 ; = ; OK
-m ipvs --vportctl ftp --vmethod masq ; -m ipvs --vmethod MASQ --vportctl 21 ; OK
:INPUT
-m ipvs --ipvs --ipvs ; ; FAIL
-m ipvs ! --ipvs --vport 80 ; ; FAIL
-m ipvs --vproto nosuch ; ; FAIL
-m ipvs --vaddr 1.2.3.4/33 --vport nosuch ; ; FAIL
-m ipvs --vdir up ; ; FAIL
-m ipvs ! --vdir REPLY ; ; FAIL
-m ipvs --vmethod NAT ; ; FAIL
-m ipvs --vportctl nosuch ; ; FAIL
-m ipvs ; ; FAIL
