:INPUT
? the object must exist in the kernel
-m nfacct --nfacct-name x ; -m nfacct --nfacct-name  x ; OK
-m nfacct --nfacct-name "a b" ; -m nfacct --nfacct-name  "a b" ; OK
:INPUT
-m nfacct --nfacct-name "" ; ; FAIL
-m nfacct --nfacct-name a --nfacct-name b ; ; FAIL
-m nfacct ; ; FAIL
