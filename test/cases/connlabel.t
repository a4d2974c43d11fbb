:INPUT,FORWARD,OUTPUT
-m connlabel --label "40" ; = ; OK
-m connlabel --label 0x10 ; -m connlabel --label "16" ; OK
-m connlabel ! --label "0" --set ; = ; OK
-m connlabel --set --label 127 ; -m connlabel --label "127" --set ; OK
-m connlabel --label 128 ; ; FAIL
-m connlabel --label nosuchlabel ; ; FAIL
-m connlabel --label "" ; ; FAIL
-m connlabel --set ; ; FAIL
-m connlabel ; ; FAIL
