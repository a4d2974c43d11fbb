/**
 * `hutter up`: puts the router together, runs it in the foreground, and takes it apart again.
 *
 *     settings → rules (refused before anything changes) → a look at the host → socket claimed → sysctls
 *       → workers bound to their queues → diversion → control socket answers … signal
 *       → diversion removed → workers end → sysctls put back → socket removed
 *
 * Whatever fails on the way up undoes what went before. A signal that comes meanwhile waits for its turn, and those after the first
 * change nothing: half a way down would leave a diversion behind that nobody answers.
 */
import { ConfigError } from './config.js';
import { Daemon, HostError } from './daemon.js';
import { DivertError } from './divert.js';
import { CompileError } from './compile/index.js';
import { ControlError } from './server.js';
import { StartError } from './router.js';
import { loadRules, RulesRefused } from './rules.js';
import { settingsFrom, unusedSettings } from './settings.js';
import { TunError } from './tun.js';

/** Runs until a signal; the exit code. `options` are the command line's, by commander's names. */
export async function up(options: Record<string, unknown>, version: string): Promise<number> {
  let daemon: Daemon;
  let told: Promise<void>;
  try {
    const settings = settingsFrom(options);
    // Who read what is said here may go (a terminal, `| head`); packets flow on.
    for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
    for (const text of unusedSettings(settings, options)) process.stderr.write(`hutter: warning: ${text}\n`);
    const ruleset = await loadRules(settings.rules);
    // From here on the host is changed: a signal that comes before all is in place has to find it undone, too.
    told = firstSignal();
    daemon = await Daemon.start(settings, ruleset, version);
  } catch (error) {
    if (error instanceof RulesRefused) {
      process.stderr.write(error.message, 'latin1');
      return error.code;
    }
    if (isExpected(error)) {
      for (const line of error.message.split('\n')) process.stderr.write(`hutter: ${line}\n`);
      return 1;
    }
    throw error;
  }
  process.stdout.write(daemon.greeting());
  await told;
  return daemon.stop();
}

/** Settled by the first signal to end. The next one is answered by what is under way, those after it by nothing. */
function firstSignal(): Promise<void> {
  let count = 0;
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
      process.on(signal, () => {
        if (++count === 1) resolve();
        else if (count === 2) process.stderr.write('hutter: ending already: the network is being put back\n');
      });
  });
}

/** Errors whose message is all there is to say; the rest are defects and show where they happened. */
function isExpected(error: unknown): error is Error {
  return (
    error instanceof ConfigError ||
    error instanceof DivertError ||
    error instanceof TunError ||
    error instanceof ControlError ||
    error instanceof CompileError ||
    error instanceof HostError ||
    error instanceof StartError
  );
}
