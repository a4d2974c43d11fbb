/*
 * tun-loop NAMESPACE NAME NAMESPACE NAME: makes a TUN interface in each of two network namespaces, with the virtio header,
 * checksum and segmentation offload, and copies what comes by one to the other until SIGTERM, up to 64 packets at a turn. It
 * routes nothing, checks nothing and leaves the TTL: what a pair of TUN interfaces costs at least. Prints "ready".
 */
#include "peer.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef TUN_F_USO4
enum { TUN_F_USO4 = 0x20, TUN_F_USO6 = 0x40 };
#endif
enum { BATCH = 64, SLOT = 66496 };

static int open_tun(const char *namespace, const char *name) {
  const unsigned offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN;
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE};
  char path[256];
  int there, fd;
  snprintf(path, sizeof path, "/run/netns/%s", namespace);
  there = open(path, O_RDONLY | O_CLOEXEC);
  if (there < 0 || setns(there, CLONE_NEWNET) < 0) fail(path);
  close(there);
  fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) fail("/dev/net/tun");
  snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
  if (ioctl(fd, TUNSETIFF, &request) < 0) fail("TUNSETIFF");
  if (ioctl(fd, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6) < 0 && ioctl(fd, TUNSETOFFLOAD, offloads) < 0)
    fail("TUNSETOFFLOAD");
  return fd;
}

int main(int argc, char **argv) {
  static unsigned char slots[BATCH][SLOT];
  ssize_t lengths[BATCH];
  struct pollfd fds[2] = {{.events = POLLIN}, {.events = POLLIN}};
  if (argc != 5) {
    fprintf(stderr, "usage: tun-loop NAMESPACE NAME NAMESPACE NAME\n");
    return 2;
  }
  fds[0].fd = open_tun(argv[1], argv[2]);
  fds[1].fd = open_tun(argv[3], argv[4]);
  stop_on_signals();
  puts("ready");
  fflush(stdout);
  while (!stopped) {
    int any = 0;
    for (int side = 0; side < 2; side++) {
      int count = 0;
      while (count < BATCH && (lengths[count] = read(fds[side].fd, slots[count], SLOT)) > 0) count++;
      for (int i = 0; i < count; i++)
        if (write(fds[!side].fd, slots[i], (size_t)lengths[i]) < 0 && errno != EIO && errno != EINVAL) fail("write");
      any += count;
    }
    if (any == 0) poll(fds, 2, -1);
  }
  return 0;
}
