:INPUT
-m comment --comment word ; = ; OK
-m comment --comment "two words" ; = ; OK
-m comment --comment "word" ; -m comment --comment word ; OK
-m comment --comment "a \"quote\" and \\" ; = ; OK
-m comment --comment it's ; -m comment --comment "it\'s" ; OK
-m comment --comment "" ; = ; OK
-m comment ; ; FAIL
-m comment --comment a --comment b ; ; FAIL
-m comment ! --comment a ; ; FAIL
