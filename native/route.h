/* Asking the kernel for one route; the words are those of src/dataplane/route/routes.ts (Question, Answer). */
#ifndef HUTTER_ROUTE_H
#define HUTTER_ROUTE_H

#include <stdint.h>

enum { QUESTION_DST, QUESTION_SRC, QUESTION_IIF, QUESTION_OIF, QUESTION_MARK, QUESTION_TOS, QUESTION_PROTOCOL,
       QUESTION_SPORT, QUESTION_DPORT, QUESTION_UID, QUESTION_WORDS };
enum { ANSWER_ERRNO, ANSWER_TYPE, ANSWER_OIF, ANSWER_GATEWAY, ANSWER_PREFSRC, ANSWER_MTU, ANSWER_REALM, ANSWER_WORDS };

/* A request socket, or −1 with errno. */
int route_socket(void);

/*
 * RTM_GETROUTE. With an IIF the kernel answers through ip_route_input(), as for a packet that came in there: type LOCAL,
 * UNICAST … or the errno it would have dropped or refused the packet with. Since Linux 6.13 every refusal inside input
 * routing itself (martian source or destination, reverse path, blackhole) is EINVAL; before, reverse path was EXDEV.
 * Routes of the kinds unreachable and prohibit answer EHOSTUNREACH and EACCES, no route ENETUNREACH or EHOSTUNREACH.
 */
void route_ask(int fd, const int32_t *question, int32_t *answer);

#endif
