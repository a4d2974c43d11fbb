:INPUT,OUTPUT
-m cgroup --cgroup 1 ; = ; OK
-m cgroup ! --cgroup 1048592 ; = ; OK
-m cgroup --cgroup 0x10 ; -m cgroup --cgroup 16 ; OK
-m cgroup --cgroup 4294967296 ; ; FAIL
-m cgroup --cgroup 1 --path / ; ; FAIL
-m cgroup --path / --path / ; ; FAIL
-m cgroup ; ; FAIL
:FORWARD
-m cgroup --cgroup 1 ; ; FAIL
:OUTPUT
? the kernel looks the path up
-m cgroup --path /user.slice ; -m cgroup --path "/user.slice" ; OK
-m cgroup ! --path "a/b" ; = ; OK
