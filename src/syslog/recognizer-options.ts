import { DIALECTS } from './dialects.ts'
import type { RecognizerOptions } from './login-recognizer.ts'

/** The settings that say which log lines count. Times are in seconds. */
export type LineSettings = {
  readonly authd: {
    readonly check_imap: boolean
    readonly syslog_hosts: readonly string[]
    readonly max_lag: number
    readonly vchkpw_tag: string
    readonly daemon_tags: readonly string[]
  }
  readonly grants: { readonly exp_time: number }
}

/** What the settings say of lines, the same for authd, `test-line` and `replay`; and what is wrong with them. */
export function recognizerOptions({ authd, grants }: LineSettings): {
  readonly options: RecognizerOptions & { readonly maxAge: number }
  readonly faults: readonly string[]
} {
  const { tags, faults } = tagsOf(authd)
  const maxAge = authd.max_lag === 0 ? grants.exp_time : Math.min(authd.max_lag, grants.exp_time)
  return {
    options: {
      dialects: DIALECTS.filter(({ setting }) => Reflect.get(authd, setting) === true),
      tags,
      imap: authd.check_imap,
      hosts: authd.syslog_hosts,
      maxAge: maxAge * 1000,
    },
    faults,
  }
}

function tagsOf({ vchkpw_tag, daemon_tags }: LineSettings['authd']) {
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
  return { tags: Object.fromEntries(tags), faults }
}
