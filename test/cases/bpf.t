:INPUT,FORWARD,OUTPUT
-m bpf --bytecode "4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0" ; = ; OK
-m bpf --bytecode "1,6 0 0 4294967295," ; -m bpf --bytecode "1,6 0 0 4294967295" ; OK
-m bpf --bytecode "4,48 0 0 9,21 0 1 6,6 0 0 1" ; ; FAIL
-m bpf --bytecode "1,6 0 0 0,6 0 0 0" ; ; FAIL
-m bpf --bytecode "0," ; ; FAIL
-m bpf --bytecode "65,6 0 0 0" ; ; FAIL
-m bpf --bytecode "1" ; ; FAIL
-m bpf --bytecode "1,6 0 0" ; ; FAIL
-m bpf --bytecode "x,6 0 0 0" ; ; FAIL
-m bpf --bytecode "1,99 0 0 0" ; ; FAIL
-m bpf ; ; FAIL
-m bpf --bytecode "1,0 0 0 0" ; ; FAIL
-m bpf --bytecode "2,21 0 1 6,6 0 0 1" ; ; FAIL
-m bpf --bytecode "2,52 0 0 0,6 0 0 1" ; ; FAIL
:INPUT
? opening a pinned object needs one
-m bpf --object-pinned /sys/fs/bpf/match ; = ; OK
-m bpf --object-pinned=/sys/fs/bpf/match ; -m bpf --object-pinned /sys/fs/bpf/match ; OK
:INPUT
-m bpf --bytecode "1,6 0 0 0" --object-pinned /nosuch ; ; FAIL
