:INPUT,FORWARD
-m policy --dir in --pol ipsec ; = ; OK
-m policy --dir in --pol none ; = ; OK
-m policy --pol none --dir in ; -m policy --dir in --pol none ; OK
-m policy --dir in ; -m policy --dir in --pol ipsec ; OK
-m policy --dir in --pol ipsec --proto ipcomp ; = ; OK
-m policy --dir in --pol ipsec --proto 50 ; -m policy --dir in --pol ipsec --proto esp ; OK
-m policy --dir in --pol ipsec ! --proto ah ; = ; OK
-m policy --dir in --pol ipsec --proto tcp ; ; FAIL
-m policy --dir in --pol ipsec --proto nosuch ; ; FAIL
-m policy --dir in --pol ipsec --reqid 4294967295 ; = ; OK
-m policy --dir in --pol ipsec ! --reqid 0x10 ; -m policy --dir in --pol ipsec ! --reqid 16 ; OK
-m policy --dir in --pol ipsec --reqid 4294967296 ; ; FAIL
-m policy --dir in --pol ipsec --reqid 1 --reqid 2 ; ; FAIL
-m policy --dir in --pol ipsec --spi 0xa ; = ; OK
-m policy --dir in --pol ipsec --spi 10 ; -m policy --dir in --pol ipsec --spi 0xa ; OK
-m policy --dir in --pol ipsec ! --spi 0x0 ; = ; OK
-m policy --dir in --pol ipsec --spi 1 --spi 2 ; ; FAIL
-m policy --dir in --pol ipsec --spi x ; ; FAIL
-m policy --dir in --pol ipsec --mode transport ; = ; OK
-m policy --dir in --pol ipsec ! --mode tunnel ; = ; OK
-m policy --mode tunnel --dir in --pol ipsec ; -m policy --dir in --pol ipsec --mode tunnel ; OK
-m policy --dir in --pol ipsec --mode beet ; ; FAIL
-m policy --dir in --pol ipsec --mode tunnel --tunnel-src 10.0.0.0/8 ; -m policy --dir in --pol ipsec --mode tunnel --tunnel-src 10.0.0.0/8 ; OK
-m policy --dir in --pol ipsec --mode tunnel --tunnel-src 10.0.0.1/255.255.255.255 ; -m policy --dir in --pol ipsec --mode tunnel --tunnel-src 10.0.0.1 ; OK
-m policy --dir in --pol ipsec --tunnel-src 10.0.0.1 ; ; FAIL
-m policy --dir in --pol ipsec ! --mode transport ! --tunnel-src 10.0.0.1 --tunnel-dst 10.0.0.2 ; -m policy --dir in --pol ipsec ! --mode transport --tunnel-dst 10.0.0.2 ! --tunnel-src 10.0.0.1 ; OK
-m policy --dir in --pol ipsec --mode tunnel --tunnel-dst 10.1.2.3/24 ; = ; OK
-m policy --dir in --pol ipsec --mode tunnel --tunnel-dst 10.0.0.0/33 --tunnel-src host.invalid ; ; FAIL
-m policy --dir in --pol ipsec --mode transport --tunnel-src 10.0.0.1 ; ; FAIL
-m policy --dir in --pol ipsec ! --mode tunnel --tunnel-dst 10.0.0.1 ; ; FAIL
-m policy --dir in --pol ipsec --tunnel-dst 10.0.0.0/33 ; ; FAIL
-m policy --dir in --pol ipsec --strict --reqid 1 ; = ; OK
-m policy --strict --reqid 1 --pol ipsec --dir in ; -m policy --dir in --pol ipsec --strict --reqid 1 ; OK
-m policy --dir in --pol ipsec --strict --reqid 1 --next --spi 0x1 --next --proto esp --next --mode tunnel ; = ; OK
-m policy --dir in --pol ipsec --strict --spi 1 --next --spi 2 ; -m policy --dir in --pol ipsec --strict --spi 0x1 --next --spi 0x2 ; OK
-m policy --dir in --pol ipsec --strict --reqid 1 --next --reqid 1 --next --reqid 1 --next --reqid 1 --next --reqid 1 ; ; FAIL
-m policy --dir in --pol ipsec --strict ; ; FAIL
-m policy --dir in --pol ipsec --strict --reqid 1 --next ; ; FAIL
-m policy --dir in --pol ipsec --reqid 1 --next --reqid 2 ; ; FAIL
-m policy --dir in --pol none --strict ; ; FAIL
-m policy --dir in --pol none --strict --next ; ; FAIL
-m policy --dir up ; ; FAIL
-m policy --dir in --pol some ; ; FAIL
-m policy --pol ipsec ; ; FAIL
-m policy ; ; FAIL
:OUTPUT
-m policy --dir out --pol ipsec ; = ; OK
-m policy --dir in --pol ipsec ; ; FAIL
:INPUT
-m policy --dir out --pol ipsec ; ; FAIL
*mangle
:POSTROUTING
-m policy --dir out --pol none ; = ; OK
-m policy --dir in --pol none ; ; FAIL
:PREROUTING
-m policy --dir out --pol none ; ; FAIL
