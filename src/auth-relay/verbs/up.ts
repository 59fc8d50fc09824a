import { resolve } from 'node:path'
import { createLog } from '../../base/log.ts'
import type { RunningDaemon } from '../../process/lifecycle.ts'
import { SETTINGS_FILE } from '../../settings/settings.ts'
import { formatBanner, prepareDemo } from '../demo/prepare-demo.ts'
import { startStack } from '../stack/stack.ts'
import type { Surroundings, Verb } from '../verb.ts'

/** `auth-relay up`: the whole stack, as children of this process. */
export const up: Verb = (program, surroundings, choose) => {
  program
    .command('up')
    .description('run the whole stack: database, authd, popup, sslwrap, wrap, the status page and the alerts')
    .option('--config <file>', 'settings file', SETTINGS_FILE)
    .option('--demo', 'on free ports, with an account, a maildrop and an SMTP server for trials')
    .option('--dir <directory>', 'with --demo: directory of all files', 'var')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay up --demo
  POP3_PORT=0 POP3S_PORT=0 SMTP_PORT=0 STATUS_PORT=0 auth-relay up --demo --dir /tmp/demo
  auth-relay up --config /etc/auth-relay.toml

SIGHUP makes every program read its settings, certificates and secrets again.
SIGTERM and Ctrl-C stop everything.`,
    )
    .action((options: { config: string; demo?: true; dir: string }) => {
      choose({
        kind: 'daemon',
        name: 'auth-relay',
        start: () =>
          options.demo === true ? startDemo(options.dir, surroundings) : start(options.config, surroundings),
      })
    })
}

const log = createLog('auth-relay')

const start = (config: string, { environment }: Surroundings): Promise<RunningDaemon> =>
  startStack({ config: resolve(config), environment, log })

async function startDemo(dir: string, { environment, print }: Surroundings): Promise<RunningDaemon> {
  const demo = await prepareDemo(resolve(dir), environment)
  log.warn('setting_unsafe', { setting: 'grant_loopback', reason: 'demo: your own address 127.0.0.1 is granted' })
  if (!demo.separated)
    log.warn('privileges_shared', { reason: 'started without root: every program runs as the same user' })
  if (demo.runtime !== demo.dir) {
    log.info('directory_chosen', { directory: demo.runtime, reason: `${demo.dir} is closed to other accounts` })
  }
  const stack = await startStack({ config: demo.config, environment, log })
  // After the ready line, so that it is the last thing on the screen before the first event.
  setImmediate(() => print(formatBanner(demo, process.cwd(), process.argv[1] ?? '')))
  // A closed terminal ends the demo. The demo has no settings to reload.
  return process.stdin.isTTY === true ? { ...stack, reload: () => void process.kill(process.pid, 'SIGTERM') } : stack
}
