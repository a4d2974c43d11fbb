:INPUT
? needs the kernel module xt_LED
-j LED --led-trigger-id net ; -j LED --led-trigger-id "net" ; OK
-j LED --led-trigger-id "net" ; = ; OK
-j LED --led-trigger-id "a\"b\\c" ; -j LED --led-trigger-id "a\"b\\c" ; OK
-j LED --led-trigger-id "" ; = ; OK
-j LED --led-trigger-id "net" --led-delay 500 --led-always-blink ; = ; OK
-j LED --led-always-blink --led-delay 0x10 --led-trigger-id "net" ; -j LED --led-trigger-id "net" --led-delay 16 --led-always-blink ; OK
-j LED --led-trigger-id "net" --led-delay 0 ; -j LED --led-trigger-id "net" ; OK
-j LED --led-trigger-id "net" --led-delay Infinite ; -j LED --led-trigger-id "net" --led-delay inf ; OK
-j LED --led-trigger-id "01234567890123456" ; = ; OK
:INPUT
-j LED ; ; FAIL
-j LED --led-trigger-id 012345678901234567 ; ; FAIL
-j LED --led-trigger-id net --led-delay x ; ; FAIL
-j LED --led-trigger-id net --led-delay 4294967296 ; ; FAIL
-j LED --led-trigger-id net --led-always-blink --led-always-blink ; ; FAIL
-j LED --led-always-blink ; ; FAIL
