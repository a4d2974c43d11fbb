:INPUT
? the estimators must exist, made by -j RATEEST
-m rateest --rateest RE1 --rateest-lt --rateest-bps 8bit ; = ; OK
-m rateest --rateest1 RE1 --rateest-lt --rateest-bps 8 ; -m rateest --rateest RE1 --rateest-lt --rateest-bps 8bit ; OK
-m rateest --rateest RE1 ! --rateest-eq --rateest-pps 5 ; -m rateest --rateest RE1 ! --rateest-eq --rateest-pps 5 ; OK
-m rateest --rateest-gt --rateest RE1 --rateest-bps 1mbit ; -m rateest --rateest RE1 --rateest-gt --rateest-bps 1000Kbit ; OK
-m rateest --rateest RE1 --rateest-gt --rateest-bps2 2GBps ; -m rateest --rateest RE1 --rateest-gt --rateest-bps 16000Mbit ; OK
-m rateest --rateest-eq --rateest RE1 --rateest-pps2 0x5 ; -m rateest --rateest RE1 --rateest-eq --rateest-pps 5 ; OK
-m rateest --rateest1 RE1 --rateest-lt --rateest-bps --rateest2 RE2 ; = ; OK
-m rateest --rateest2 RE2 --rateest1 RE1 --rateest-gt --rateest-pps ; -m rateest --rateest1 RE1 --rateest-gt --rateest-pps --rateest2 RE2 ; OK
-m rateest --rateest-delta --rateest1 RE1 --rateest-bps1 8bit --rateest-lt --rateest-bps2 16bit --rateest2 RE2 ; = ; OK
-m rateest --rateest1 RE1 --rateest2 RE2 --rateest-delta --rateest-pps1 7 --rateest-pps2 9 --rateest-gt ; -m rateest --rateest-delta --rateest1 RE1 --rateest-pps1 7 --rateest-gt --rateest-pps2 9 --rateest2 RE2 ; OK
-m rateest --rateest1 RE1 --rateest2 RE2 --rateest-delta --rateest-bps1 1kbit --rateest-bps2 1kbit --rateest-eq ; -m rateest --rateest-delta --rateest1 RE1 --rateest-bps1 1000bit --rateest-eq --rateest-bps2 1000bit --rateest2 RE2 ; OK
:INPUT
-m rateest ! --rateest1 RE1 --rateest-lt --rateest-bps 8 ; ; FAIL
-m rateest --rateest1 RE1 --rateest1 RE1 ; ; FAIL
-m rateest --rateest1 RE1 ! --rateest2 RE2 ; ; FAIL
-m rateest --rateest1 RE1 --rateest-bps1 8foo --rateest-lt ; ; FAIL
-m rateest --rateest1 RE1 --rateest-bps2 foo --rateest-lt ; ; FAIL
-m rateest --rateest1 RE1 --rateest-pps1 foo --rateest-lt ; ; FAIL
-m rateest --rateest1 RE1 --rateest-pps2 -1 --rateest-lt ; ; FAIL
-m rateest --rateest1 RE1 ! --rateest-delta ; ; FAIL
-m rateest --rateest1 RE1 --rateest-lt --rateest-lt ; ; FAIL
-m rateest --rateest1 RE1 --rateest-gt --rateest-gt ; ; FAIL
-m rateest --rateest1 RE1 --rateest-eq --rateest-eq ; ; FAIL
