/*
 * nfq-accept QUEUE [LENGTH] [one|each]: the least a userspace filter can do. Every packet is copied up and accepted
 * unseen. `one` (default) answers a batch with a single NFQNL_MSG_VERDICT_BATCH, `each` with a verdict a packet, all in one send.
 * Prints "ready" when bound and its counts, as JSON, at SIGTERM.
 */
#include "nfq.h"

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: nfq-accept QUEUE [LENGTH] [one|each]\n");
    return 2;
  }
  static struct queue q;
  open_queue(&q, (uint16_t)atoi(argv[1]), argc > 2 ? (uint32_t)atoi(argv[2]) : 4096);
  int each = argc > 3 && strcmp(argv[3], "each") == 0;
  printf("ready\n");
  fflush(stdout);

  static struct verdict verdicts[BATCH];
  struct iovec iov[BATCH];
  while (!stopped) {
    int n = receive(&q);
    if (n == 0) continue;
    if (each) {
      for (int i = 0; i < n; i++) {
        write_verdict(&q, &verdicts[i], q.packets[i].id, NF_ACCEPT, 0);
        iov[i] = (struct iovec){&verdicts[i], verdicts[i].nlh.nlmsg_len};
      }
      send_verdicts(&q, iov, (size_t)n);
    } else {
      /* Ids count up, so the last one stands for all before it. */
      write_verdict(&q, &verdicts[0], q.packets[n - 1].id, NF_ACCEPT, 0);
      verdicts[0].nlh.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_VERDICT_BATCH;
      iov[0] = (struct iovec){&verdicts[0], verdicts[0].nlh.nlmsg_len};
      send_verdicts(&q, iov, 1);
    }
  }
  report(&q);
  return 0;
}
