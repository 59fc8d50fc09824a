import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Settings, ShownSetting } from '../../settings/settings.ts'
import { advice, type Finding, fine, unsafe } from './finding.ts'

/** Names the settings that are written by a former name. */
export const checkNames = (shown: readonly ShownSetting[]): readonly Finding[] =>
  shown.flatMap(({ section, name, formerName, origin }) =>
    formerName === undefined
      ? []
      : [
          advice(
            `${section}.${formerName}`,
            `is called ${name} now; the former name stays valid`,
            origin.type === 'environment' ? `rename ${origin.variable}` : `write ${name}`,
          ),
        ],
  )

/**
 * Authenticators whether a Postfix of this host reaches the gate's Unix sockets that its main.cf names: a smtpd in a chroot, as Debian
 * has it, sees the queue directory alone, and defers all mail if it cannot ask.
 */
export function checkPostfix({ wrap }: Pick<Settings, 'wrap'>, etc = '/etc/postfix'): readonly Finding[] {
  const main = logicalLines(textOf(join(etc, 'main.cf')))
  const isChrooted = logicalLines(textOf(join(etc, 'master.cf'))).some(line => {
    const [, type, , , chroot, , , command] = line.split(/\s+/)
    return type === 'inet' && command === 'smtpd' && chroot === 'y'
  })
  if (!isChrooted) return []
  const queue =
    main.map(line => /^queue_directory\s*=\s*(\S+)/.exec(line)?.[1]).findLast(path => path !== undefined) ??
    '/var/spool/postfix'
  const services = { policy_listen: wrap.policy_listen, socketmap_listen: wrap.socketmap_listen }
  return Object.entries(services).flatMap(([name, addresses]) =>
    addresses.flatMap((address): Finding[] => {
      if (address.type !== 'unix' || !main.some(line => namesSocket(line, address.path))) return []
      const inside = join(queue, address.path)
      const isThere = statSync(inside, { throwIfNoEntry: false })?.isSocket() === true
      return address.path.startsWith(`${queue}/`) || isThere
        ? [fine(`wrap.${name}`, `the smtpd of Postfix reaches ${address.path} in its chroot`)]
        : [
            unsafe(
              `wrap.${name}`,
              `the smtpd of Postfix runs in the chroot ${queue} and cannot reach ${address.path}: it defers all mail`,
              `use inet:127.0.0.1:10040 in main.cf and ${name} = ["127.0.0.1:10040"], or write n in the chroot column of smtpd in master.cf`,
            ),
          ]
    }),
  )
}

const namesSocket = (line: string, path: string): boolean =>
  [...line.matchAll(/unix:([^\s,{}]+)/g)].some(([, named = '']) => named === path || named.startsWith(`${path}:`))

/** Lines of postconf(5): one that begins with a blank continues the line before. */
const logicalLines = (text: string): readonly string[] =>
  text
    .split('\n')
    .filter(line => !/^\s*(#|$)/.test(line))
    .join('\n')
    .replace(/\n\s+/g, ' ')
    .split('\n')

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return '' // no Postfix here
  }
}
