import { resolve } from 'node:path'
import { nearest, UsageFault } from '../../../base/errors.ts'
import { policyOf } from '../../../grants/grant-policy.ts'
import { loadSettingsFile } from '../../../settings/settings.ts'
import { count, printable } from '../../text/terminal.ts'
import type { Verb } from '../../verb.ts'
import { withConfigOption } from '../../verb.ts'
import { FORMATS, readForeignGrants } from './foreign-grants.ts'
import { recordPastLogins } from './past-logins.ts'

/** `auth-relay import`: imports the grants of another POP-before-SMTP program. */
export const importGrants: Verb = (program, { environment, print }, choose) => {
  withConfigOption(program.command('import'))
    .description(
      'import the grants of another program, each from the time of its login, or from now if that is unknown',
    )
    .argument('<format>', Object.keys(FORMATS).join(', '))
    .argument('<file>', 'the file, the directory of relay-ctrl, or - for standard input')
    .option('--shadow', 'grant nothing: only print what is found')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Formats:
${Object.entries(FORMATS)
  .map(([name, { doc }]) => `  ${name.padEnd(17)}${doc}`)
  .join('\n')}

Examples:
  auth-relay import open-smtp /home/vpopmail/etc/open-smtp
  auth-relay import relay-ctrl /var/spool/relay-ctrl/allow --shadow
  auth-relay import drac /etc/mail/dracd.db
  psql -AtF, -f old-grants.sql | auth-relay import csv -

A time is in Unix seconds, with or without a fraction. Blanks around a field are ignored. The
first ten invalid entries are shown with their line numbers.

Exit status 1 if nothing is found.`,
    )
    .action((format: string, file: string, options: Options) => {
      const known = Object.keys(FORMATS)
      const reader = Object.entries(FORMATS).find(([name]) => name === format)?.[1]
      if (reader === undefined) {
        const near = nearest(format, known)
        throw new UsageFault(
          `there is no format ${format}${near === undefined ? '' : `; did you mean ${near}?`}: known are ${known.join(', ')}`,
        )
      }
      choose({
        kind: 'command',
        run: async () => {
          const { settings } = loadSettingsFile(resolve(options.config), environment)
          const now = new Date()
          const expTime = settings.grants.exp_time * 1000
          const { logins, faults, samples } = readForeignGrants(reader, file === '-' ? file : resolve(file), {
            now,
            expTime,
          })
          const young = logins.filter(({ at }) => at.getTime() > now.getTime() - expTime)
          const outcome = options.shadow === true ? undefined : await recordPastLogins(settings, 'import', young)
          const policy = policyOf(settings)
          const never = young.filter(({ ip }) => policy.neverList.loginRefusal(ip) !== undefined).length
          const counts = {
            found: logins.length,
            young: young.length,
            never,
            unreadable: faults,
            samples,
            granted: outcome?.granted ?? null,
            refused: outcome?.refused ?? null,
          }
          if (options.json === true) print(`${JSON.stringify(counts)}\n`)
          else {
            print(
              `${count(logins.length, 'grant')} found, ${young.length} of them younger than exp_time, ${never} of these for addresses that are never granted. ${count(faults, 'entry', 'entries')} invalid.\n`,
            )
            for (const { n, text } of samples)
              print(`  ${reader.line === undefined ? 'entry' : 'line'} ${n}: ${printable(text)}\n`)
            if (faults > samples.length) print(`  and ${faults - samples.length} more\n`)
            print(
              outcome === undefined
                ? 'Nothing was granted (--shadow).\n'
                : `Granted: ${outcome.granted}. Refused: ${outcome.refused}.\n`,
            )
          }
          return logins.length > 0 ? 0 : 1
        },
      })
    })
}

type Options = { config: string; shadow?: true; json?: true }
