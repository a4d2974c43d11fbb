*mangle
:PREROUTING,FORWARD
-j TEE --gateway 1.2.3.4 ; = ; OK
-j TEE --gateway 1.2.3 ; -j TEE --gateway 1.2.0.3 ; OK
-j TEE --gateway 0.0.0.0 ; ; FAIL
-j TEE --gateway 1.2.3.4 --oif eth0 ; = ; OK
-j TEE --oif eth0 --gateway 1.2.3.4 ; -j TEE --gateway 1.2.3.4 --oif eth0 ; OK
-j TEE --gateway 1.2.3.4 --oif 0123456789abcdef ; -j TEE --gateway 1.2.3.4 --oif 0123456789abcde ; OK
-j TEE --gateway 1.2.3.4 --oif "" ; -j TEE --gateway 1.2.3.4 ; OK
-j TEE --oif eth0 ; ; FAIL
