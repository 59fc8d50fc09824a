import { UsageFault } from '../../../src/base/errors.ts'
import { parseSettings, SECTIONS } from '../../../src/settings/settings.ts'
import { type FuzzTarget, only, promise } from './fuzz-target.ts'
import { mutated } from './mutation.ts'

const FILES = [
  'configured = true\nlog_level = "info"\n[grants]\nexp_time = 600\nnever_grant = ["192.0.2.0/24"]\n',
  '[popup]\nlisten = ["*:110", "[::1]:110"]\nchecker = "checkpassword"\ncheckpassword = ["/bin/checkpassword"]\nfail_delays = ["2", "4"]\n',
  '[[sslwrap.listener]]\nlisten = "*:995"\nbackend = "127.0.0.1:110"\npreamble = "ssl"\n[[sslwrap.certificate]]\ncert = "/a"\n',
  '[database]\nembedded = true\ndbhost = "a,b"\n[wrap]\nlisten = ["*:25"]\nsmtpd = ["/bin/smtpd", "x"]\n[authd]\nmetrics_listen = ""\n',
  '# comment\n"configured" = false\ngrants.exp_time = 1_000\nwrap = { listen = [], policy_listen = ["unix:/run/p"] }\n',
]
const WORDS = [
  ...Object.values(SECTIONS).flatMap(({ name, rows }) => [`\n[${name}]\n`, ...Object.keys(rows).slice(0, 12)]),
  ...[
    '= ',
    '= true',
    '= -1',
    '= 0.5',
    '= nan',
    '= "',
    "= '''",
    '= [',
    '= {',
    '= 1979-05-27T07:32:00Z',
    '[[',
    ']]',
    '"""',
    '\\u0000',
  ],
]
const PATH = '/etc/auth-relay.toml'

/** The settings file: valid settings as the schemas define them, or faults with file and line. */
export const settingsFile: FuzzTarget = {
  name: 'settings-file',
  attempt(random) {
    const text = mutated(random, random.pick(FILES), WORDS)
    try {
      const { settings } = parseSettings(text, PATH)
      promise(settings.grants.exp_time >= 1 && settings.grants.exp_time <= 86_400, 'a grant without end', text)
      promise(Object.isFrozen(settings), 'settings that can change', text)
    } catch (error) {
      if (!(error instanceof UsageFault))
        only(UsageFault, text, () => {
          throw error
        })
      else
        for (const fault of error.faults)
          promise(fault.startsWith(PATH) && !/[\r\n]/.test(fault), `fault ${fault}`, text)
    }
  },
}
