:INPUT
? needs a kernel before 6.5
-j CLUSTERIP ; = ; OK
-j CLUSTERIP --new --hashmode sourceip --clustermac 01:00:5E:00:00:14 --total-nodes 2 --local-node 1 --hash-init 0 ; = ; OK
-j CLUSTERIP --hash-init 0x10 --local-node 02 --total-nodes 16 --clustermac 1:0:5e::a:b --hashmode sourceip-sourceport --new ; -j CLUSTERIP --new --hashmode sourceip-sourceport --clustermac 01:00:5E:00:0A:0B --total-nodes 16 --local-node 2 --hash-init 16 ; OK
-d 10.0.0.1/32 -i eth0 -j CLUSTERIP --new --hashmode sourceip-sourceport-destport --clustermac 01:00:5E:00:00:14 --total-nodes 2 --local-node 1 --hash-init 0 ; = ; OK
-d 10.0.0.1/32 -i eth0 -j CLUSTERIP --new --hashmode sourceip --clustermac 01:00:5E:00:00:14 --total-nodes 2 --local-node 1 ; -d 10.0.0.1/32 -i eth0 -j CLUSTERIP --new --hashmode sourceip --clustermac 01:00:5E:00:00:14 --total-nodes 2 --local-node 1 --hash-init 0 ; OK
:INPUT
-j CLUSTERIP --new ; ; FAIL
-j CLUSTERIP --new --hashmode nosuch --clustermac 01:00:5E:00:00:14 --total-nodes 2 --local-node 1 ; ; FAIL
-j CLUSTERIP --new --hashmode sourceip --clustermac 00:00:5E:00:00:14 --total-nodes 2 --local-node 1 ; ; FAIL
-j CLUSTERIP --new --hashmode sourceip --clustermac 01:00:5E:00:00:14 --total-nodes 17 --local-node 1 ; ; FAIL
-j CLUSTERIP --new --hashmode sourceip --clustermac 01:00:5E:00:00:14 --total-nodes 2 --local-node 17 ; ; FAIL
-j CLUSTERIP --new --hashmode sourceip --clustermac 01:00:5E:00:00:14 --total-nodes 2 --local-node 1 --hash-init x ; ; FAIL
-j CLUSTERIP --hashmode sourceip --clustermac 01:00:5E:00:00:14 --total-nodes 2 --local-node 1 ; ; FAIL
-j CLUSTERIP --new --hashmode sourceip --clustermac 01:00:5E:00:00:14 --total-nodes 2 --local-node 0 ; ; FAIL
