{
  'targets': [
    {
      'target_name': 'hutter',
      'sources': [
        'native/addon.c',
        'native/util.c',
        'native/checksum.c',
        'native/memory.c',
        'native/netns.c',
        'native/nfqueue.c',
        'native/tun.c',
        'native/turn.c',
        'native/wake.c',
        'native/inject.c',
        'native/rtnetlink.c',
        'native/netfilter.c',
      ],
      'defines': ['NAPI_VERSION=8', '_GNU_SOURCE'],
      'cflags': ['-std=gnu11', '-O3', '-Wall', '-Wextra', '-Wno-unused-parameter', '-fvisibility=hidden'],
    },
  ],
}
