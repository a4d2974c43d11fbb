/**
 * The near end of a lab host: starts host.ts inside a namespace and turns calls into messages. One object a host,
 * whose methods are those of `calls` in host.ts, made asynchronous. Main thread of the lab or of a test.
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Response, calls } from './host.js';
import type { Namespace } from './netns.js';

type Calls = typeof calls;

/** The calls of a host as seen from outside, and the namespace it lives in. */
export type Host = {
  [K in keyof Calls]: (...args: Parameters<Calls[K]>) => Promise<Awaited<ReturnType<Calls[K]>>>;
} & { readonly ns: Namespace };

/** Starts a host in `ns`; resolves when it takes calls. It ends with its network or with this process. */
export async function startHost(ns: Namespace): Promise<Host> {
  const child = ns.spawn(process.execPath, [programFile()], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced',
    env: { ...process.env, HUTTER_LAB_HOST: ns.role },
  });
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  let lastId = 0;
  await new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      const error = new Error(`host ${ns.role} ended (${signal ?? code})`);
      reject(error);
      for (const { reject: fail } of waiting.values()) fail(error);
      waiting.clear();
    });
    child.on('message', (message) => {
      const { id, result, error } = message as Response;
      if (id === 0) return resolve();
      const call = waiting.get(id);
      waiting.delete(id);
      if (error === undefined) call?.resolve(result);
      else call?.reject(new Error(`${ns.role}: ${error}`));
    });
  });
  return new Proxy({ ns } as Host, {
    get(target, name) {
      if (name === 'ns') return target.ns;
      if (typeof name !== 'string' || name === 'then') return undefined; // a host is no promise
      return (...args: unknown[]) =>
        new Promise((resolve, reject) => {
          const id = ++lastId;
          waiting.set(id, { resolve, reject });
          child.send({ id, call: name, args }, (error) => {
            if (error && waiting.delete(id)) reject(error);
          });
        });
    },
  });
}

/** host.ts as built: beside this file, or in dist/bin when this file is part of a bundle. */
function programFile(): string {
  const here = path.dirname(fileURLToPath(import.meta.url));
  const file = ['host.js', 'lab-host.mjs'].map((name) => path.join(here, name)).find(existsSync);
  if (file === undefined) throw new Error(`the lab's host program is missing in ${here}: run npm run build`);
  return file;
}
