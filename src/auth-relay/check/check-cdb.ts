import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { messageOf } from '../../base/errors.ts'
import { type Ids, idsOf, isRoot } from '../../process/privileges.ts'
import type { Settings } from '../../settings/settings.ts'
import { parseTcpRule, parseTcpRules } from '../../wire/tcprules.ts'
import { advice, type Finding, fine, unsafe } from './finding.ts'

/** Faults of one file that are named: beyond, the first ones are enough to begin with. */
const MAX_FAULTS = 5

/**
 * Authenticators what the gate needs to keep its cdb: the site's rules and the directory, with the
 * rights of the gate's account.
 */
export function checkCdb({ wrap, grants }: Settings): readonly Finding[] {
  if (wrap.tcprules_cdb === '') {
    return wrap.tcprules_static === ''
      ? []
      : [advice('wrap.tcprules_static', 'no cdb is made of it', 'set tcprules_cdb, or remove tcprules_static')]
  }
  const account = accountOfGate(wrap.user)
  return [
    ...checkDirectory(wrap.tcprules_cdb, account),
    ...(wrap.tcprules_static === '' ? [] : checkRules(wrap.tcprules_static, account)),
    ...(grants.ipv6_prefix === 128 ? [] : [LOST_NETWORKS]),
  ]
}

const LOST_NETWORKS = advice(
  'grants.ipv6_prefix',
  "the tcpserver of Debian's ucspi-tcp-ipv6 finds no network in tcprules_cdb whose prefix holds a group of zeros (2001:db8:0:5::/64)",
  'let the resident gate listen, or use ucspi-tcp6',
)

type Account = { readonly name: string; readonly ids: Ids | undefined }

function accountOfGate(user: string): Account {
  if (user === '' || !isRoot()) return { name: 'this account', ids: undefined }
  try {
    return { name: user, ids: idsOf(user, 'wrap.user') }
  } catch {
    return { name: 'this account', ids: undefined } // That there is no such account is a finding of its own.
  }
}

/** True if the account may do this to the path: `r` read it, `w` write to it, `x` search it. */
const may = ({ ids }: Account, right: 'r' | 'w' | 'x', path: string): boolean =>
  spawnSync('test', [`-${right}`, path], { cwd: '/', ...ids }).status === 0

function checkDirectory(cdb: string, account: Account): Finding[] {
  const directory = dirname(cdb)
  return may(account, 'w', directory) && may(account, 'x', directory)
    ? [fine('wrap.tcprules_cdb', `${account.name} can replace ${cdb}`)]
    : [
        unsafe(
          'wrap.tcprules_cdb',
          `${account.name} cannot make files in ${directory}`,
          `give the cdb a directory of its own: install -d -o ${account.ids?.uid ?? 'ACCOUNT'} DIRECTORY`,
        ),
      ]
}

function checkRules(path: string, account: Account): Finding[] {
  const about = 'wrap.tcprules_static'
  if (!existsSync(path)) return [unsafe(about, `there is no ${path}`, 'write the rules there; an empty file will do')]
  if (!may(account, 'r', path)) {
    return [unsafe(about, `${account.name} cannot read ${path}`, `make it readable: chmod a+r ${path}`)]
  }
  let text: Buffer
  try {
    text = readFileSync(path)
  } catch (error) {
    return [unsafe(about, messageOf(error), 'name a rules text of tcprules')]
  }
  const { records, faults } = parseTcpRules(text)
  if (faults.length > 0) {
    return faults
      .slice(0, MAX_FAULTS)
      .map(({ line, reason }) =>
        unsafe(about, `${path}:${line}: ${reason}`, 'the rules before the fault stay in force until it is mended'),
      )
  }
  const byName = records.find(({ key, data }) => /^(?:[^@]*@)?=/.test(key) && !parseTcpRule(data).allow)
  return [
    fine(about, `${path} has ${records.length} rules`),
    ...(byName === undefined
      ? []
      : [
          advice(
            about,
            `${byName.key}:deny does not hold against a grant: tcpserver finds the address before the name`,
            'deny addresses',
          ),
        ]),
  ]
}
