import { UsageFault } from '../daemon/exit-status.ts'
import type { Settings } from '../daemon/settings/settings.ts'
import { DIALECTS } from '../syslog/dialects.ts'
import { LoginRecognizer } from '../syslog/login-recognizer.ts'
import type { Recognizers } from './intake.ts'

/** What the settings say of lines: which daemons, tags and hosts are believed. @throws UsageFault for unknown dialects. */
export function recognizersFor({ authd }: Settings): Recognizers {
  const options = {
    dialects: DIALECTS.filter(({ setting }) => Reflect.get(authd, setting) === true),
    tags: tagsFor(authd),
    imap: authd.check_imap,
    hosts: authd.syslog_hosts,
    maxLag: authd.max_lag * 1000,
  }
  return {
    syslog: new LoginRecognizer(options),
    files: new LoginRecognizer({ ...options, ownFiles: true }),
  }
}

function tagsFor({ vchkpw_tag, daemon_tags }: Settings['authd']): Readonly<Record<string, readonly string[]>> {
  const tags = new Map<string, string[]>([['vchkpw', [vchkpw_tag]]])
  const faults: string[] = []
  for (const pair of daemon_tags) {
    const [, name = '', tag = ''] = /^([a-z0-9-]+)=([A-Za-z0-9_./-]{1,32})$/.exec(pair) ?? []
    if (DIALECTS.some(dialect => dialect.name === name)) tags.set(name, [...(tags.get(name) ?? []), tag])
    else {
      const known = DIALECTS.map(dialect => dialect.name).join(', ')
      faults.push(`authd.daemon_tags: "${pair}": write DIALECT=TAG, with a dialect of: ${known}`)
    }
  }
  if (faults.length > 0) throw new UsageFault(faults)
  return Object.fromEntries(tags)
}
