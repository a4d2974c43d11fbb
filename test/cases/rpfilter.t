*raw
:PREROUTING
-m rpfilter ; = ; OK
-m rpfilter --loose ; = ; OK
-m rpfilter --validmark ; = ; OK
-m rpfilter --accept-local ; = ; OK
-m rpfilter --invert ; = ; OK
-m rpfilter --invert --accept-local --validmark --loose ; -m rpfilter --loose --validmark --accept-local --invert ; OK
-m rpfilter --loose --loose ; ; FAIL
-m rpfilter ! --loose ; ; FAIL
-m rpfilter ! --validmark ; ; FAIL
-m rpfilter ! --accept-local ; ; FAIL
-m rpfilter ! --invert ; ; FAIL
:OUTPUT
-m rpfilter ; ; FAIL
*mangle
:PREROUTING
-m rpfilter --loose --invert ; = ; OK
:FORWARD
-m rpfilter --loose --invert ; ; FAIL
*nat
:PREROUTING
-m rpfilter ; ; FAIL
*filter
:INPUT
-m rpfilter ; ; FAIL
