*mangle
:PREROUTING,INPUT
-m socket ; = ; OK
-m socket --transparent ; = ; OK
-m socket --nowildcard ; = ; OK
-m socket --restore-skmark ; = ; OK
-m socket --restore-skmark --nowildcard --transparent ; -m socket --transparent --nowildcard --restore-skmark ; OK
-m socket ! --transparent ; ; FAIL
-m socket --nowildcard --nowildcard ; ; FAIL
-m socket --restore-skmark 1 ; ; FAIL
:FORWARD,OUTPUT,POSTROUTING
-m socket ; ; FAIL
