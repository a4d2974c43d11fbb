/** -m cgroup: the control group of the sending socket. (libxt_cgroup.c revision 2, xt_cgroup.c) */
import { bang, formatString, string, uint32 } from './args.js';
import { defineMatch, option } from './record.js';

export interface CgroupData {
  /** null = not asked. */
  path: string | null;
  classId: number | null;
  notPath: boolean;
  notClassId: boolean;
}

const PATH_BYTES = 512;

export const cgroup = defineMatch<CgroupData>({
  name: 'cgroup',
  revision: 2,
  hooks: ['INPUT', 'OUTPUT', 'POSTROUTING'],
  init: () => ({ path: null, classId: null, notPath: false, notClassId: false }),
  options: [
    option({
      name: 'path',
      arg: string({ size: PATH_BYTES }),
      invert: true,
      set: (data, path, { invert }) => {
        data.path = path;
        data.notPath = invert;
      },
    }),
    option({
      name: 'cgroup',
      arg: uint32(),
      invert: true,
      set: (data, id, { invert }) => {
        data.classId = id;
        data.notClassId = invert;
      },
    }),
  ],
  save: ({ path, classId, notPath, notClassId }) =>
    (path === null ? '' : `${bang(notPath)} --path${formatString(path)}`) +
    (classId === null ? '' : `${bang(notClassId)} --cgroup ${classId}`),
  print: ({ path, classId, notPath, notClassId }) =>
    ' cgroup' +
    (path === null ? '' : ` ${notPath ? '! ' : ''}${path}`) +
    (classId === null ? '' : ` ${notClassId ? '! ' : ''}${classId}`),
  help: `cgroup match options:
[!] --path path                 Recursively match path relative to cgroup2 root
[!] --cgroup classid            Match cgroup classid, can't be used with --path
`,
  check: ({ path, classId }) =>
    (path === null) === (classId === null)
      ? { errno: 'EINVAL', reason: 'cgroup: either a path or a class id' }
      : undefined,
  cannot: () => 'it needs the control group of the sending socket, which the queue does not tell',
});
