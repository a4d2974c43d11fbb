/*
 * Another network namespace for the time of one native call: setns moves a thread, so it goes and returns in one piece.
 * What is opened there (sockets, TUN descriptors) stays bound to it.
 */
#ifndef HUTTER_NETNS_H
#define HUTTER_NETNS_H

enum { MAX_PATH = 4096 };

/*
 * Moves this thread into the namespace behind `path`, '' = it stays. Returns NULL with the way home in `*home`, or the
 * step that failed with errno in `*error`, and then the thread hasn't moved.
 */
const char *netns_enter(const char *path, int *home, int *error);

/* Moves it back. A thread that could not return would work in the wrong place: the process ends. */
void netns_leave(int home);

#endif
