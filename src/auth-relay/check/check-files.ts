/** Checks of files and accounts of this host. A fault in one check does not end the others. */

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { accessSync, constants, existsSync, readFileSync, type Stats, statSync } from 'node:fs'
import { join } from 'node:path'
import { isAccessDenied, messageOf, UsageFault } from '../../base/errors.ts'
import { gidOf, idsOf, isRoot } from '../../process/privileges.ts'
import { formatDuration } from '../../settings/duration.ts'
import { AUTHD } from '../../settings/grant-sections.ts'
import { readSecretFile, SecretMissing } from '../../settings/secret.ts'
import type { LoadedSettings, Settings, ShownSetting } from '../../settings/settings.ts'
import { checkRuleNames } from '../alerts/alert-watch.ts'
import { reportersOf } from '../alerts/reporters.ts'
import { isSelfSigned } from '../certificates.ts'
import { type PartsInUse, partsInUseHere, servesPop3 } from '../stack/plan.ts'
import { formatMoment } from '../text/moment.ts'
import { isPassword } from '../text/settings-text.ts'
import { checkExim, checkPostfix, checkTcpRules } from './check-gate.ts'
import { rolesInUse } from './check-host.ts'
import { checkMissingMaildrops } from './check-maildirs.ts'
import { checkRights } from './check-rights.ts'
import { checkSyslog } from './check-syslog.ts'
import { advice, closedPath, type Finding, fine, unsafe, unsafeBecause } from './finding.ts'

/** Checks the files of the host that the settings name, and the settings file itself. */
export function checkFiles(
  { settings, shown }: LoadedSettings,
  config: string,
  now: Date,
  parts: PartsInUse = partsInUseHere(settings),
): readonly Finding[] {
  const checks: readonly (() => readonly Finding[])[] = [
    () => checkSettingsFile(shown, config),
    () => checkSecrets(settings, parts),
    () => checkCertificates(settings, parts, now),
    () => checkQmail(settings),
    () => checkChecker(settings),
    () => (parts.popup ? checkMissingMaildrops(settings) : []),
    () => checkSyslog(settings),
    () => checkTcpRules(settings),
    () => checkRights(settings, { script: process.argv[1] ?? '' }),
    () => checkPostfix(settings),
    () => checkExim(settings),
    () => checkAccounts(settings, parts),
    () => checkAdmitted(settings, parts),
    () => (parts.alerts ? checkAlerts(settings) : []),
  ]
  return checks.flatMap(check => findingsOf(check))
}

/** A path that cannot be reached ends one check alone. */
function findingsOf(check: () => readonly Finding[]): readonly Finding[] {
  try {
    return check()
  } catch (error) {
    return closedPath(error)
  }
}

function checkSettingsFile(shown: readonly ShownSetting[], config: string): Finding[] {
  const { mode, uid } = statSync(config)
  const found: Finding[] = []
  if ((mode & 0o022) !== 0) {
    found.push(unsafe(config, `mode ${octal(mode)}: others may write to it`, `chmod go-w ${config}`))
  }
  if (uid !== 0 && uid !== process.getuid?.()) {
    found.push(unsafe(config, `belongs to uid ${uid}`, `chown root ${config}`))
  }
  // A password in the environment is not in the file.
  const holdsSecrets = shown.some(
    ({ name, origin, written }) => origin.kind === 'file' && isPassword(name) && written !== '',
  )
  if (holdsSecrets && (mode & 0o004) !== 0) {
    found.push(unsafe(config, `mode ${octal(mode)}: every account can read the passwords in it`, `chmod o-r ${config}`))
  }
  return found.length > 0 ? found : [fine(config, `mode ${octal(mode)}`)]
}

function checkSecrets(settings: Settings, parts: PartsInUse): Finding[] {
  const { popup, sslwrap, database } = settings
  const found: Finding[] = []
  const needsSslHack =
    parts.sslwrap && (sslwrap.listener.length === 0 || sslwrap.listener.some(({ preamble }) => preamble === 'ssl'))
  const roles = rolesInUse(settings, parts)
  const files: readonly (readonly [string, string, boolean])[] = [
    ['popup.ssl_hack_pass', popup.ssl_hack_pass, needsSslHack],
    ['database.dbpass_file', database.dbpass_file, roles.includes('writer')],
    ['database.wrap_dbpass_file', database.wrap_dbpass_file, roles.includes('reader')],
    ['database.status_dbpass_file', database.status_dbpass_file, roles.includes('status')],
  ]
  for (const [name, path, isNeeded] of files) {
    if (path === '' || (!isNeeded && !existsSync(path))) continue
    try {
      readSecretFile(path)
      found.push(fine(name, `${path} holds a secret and is closed to others`))
    } catch (error) {
      if (!(error instanceof UsageFault)) throw error
      const isMissing = error instanceof SecretMissing
      const findings = unsafeBecause(name, error)
      found.push(
        ...findings.map(({ text, ...rest }) =>
          isMissing ? unsafe(name, text, remedyForSecret(name, path)) : { text, ...rest },
        ),
      )
    }
  }
  if (!parts.popup) return found
  for (const [name, path, remedy] of [
    [
      'popup.passwd_file',
      popup.checker === 'passwd-file' ? popup.passwd_file : '',
      'create it with: auth-relay passwd LOGIN',
    ],
    ['popup.apop_file', popup.apop_file, 'write a line LOGIN:SECRET for each login there, and chmod 600 the file'],
  ] as const) {
    if (path === '') continue
    const status = statOf(path)
    if (status === undefined) found.push(unsafe(name, `${path} does not exist`, remedy))
    else if ((status.mode & 0o007) !== 0) {
      found.push(
        unsafe(name, `${path} is open to every user of this host (${octal(status.mode)})`, `chmod o-rwx ${path}`),
      )
    } else found.push(fine(name, `${path} is closed to others`))
  }
  return found
}

/** The roles of the database get the new password from the file. */
function remedyForSecret(name: string, path: string): string {
  const write = `(umask 077; head -c 24 /dev/urandom | base64 > ${path})`
  return name.startsWith('database.') ? `${write} && auth-relay migrate --user postgres` : write
}

/** Faults of [alerts] with which the process does not start. */
function checkAlerts(settings: Settings): Finding[] {
  try {
    checkRuleNames(settings)
    reportersOf(settings)
    return []
  } catch (error) {
    if (!(error instanceof UsageFault)) throw error
    return unsafeBecause('alerts.webhook_file', error)
  }
}

function checkCertificates({ sslwrap, popup }: Settings, parts: PartsInUse, now: Date): Finding[] {
  const pairs = [
    ...(parts.sslwrap ? [['sslwrap.cert', sslwrap.cert, sslwrap.key] as const] : []),
    ...sslwrap.listener.flatMap(({ cert, key }) =>
      cert === undefined ? [] : [['sslwrap.listener.cert', cert, key ?? cert] as const],
    ),
    ...sslwrap.certificate.map(({ cert, key }) => ['sslwrap.certificate.cert', cert, key ?? cert] as const),
    ...((popup.stls || popup.tls_listen.length > 0) && parts.popup
      ? [['popup.stls_cert', popup.stls_cert, popup.stls_key] as const]
      : []),
  ]
  return pairs.flatMap(([name, cert, key]) =>
    existsSync(cert) || existsSync(key)
      ? parseCertificate(name, cert, key, now)
      : [missingCertificate(name, cert, parts.sslwrap && cert === sslwrap.cert)],
  )
}

/** sslwrap makes only the certificate that `sslwrap.cert` names. */
function missingCertificate(name: string, cert: string, isMade: boolean): Finding {
  const request = 'auth-relay cert --csr NAME makes a request for a real one'
  if (isMade && name.startsWith('sslwrap.')) {
    const text = `${cert} does not exist: sslwrap makes a self-signed one at its first start, and clients show a warning`
    return advice(name, text, request)
  }
  const program = name.startsWith('popup.') ? 'popup' : 'sslwrap'
  return unsafe(
    name,
    `${cert} does not exist: ${program} does not start`,
    `put a certificate there, or change ${name}; ${request}`,
  )
}

/** Time before the end of a certificate from which on the finding warns: 14 days. */
const SOON_S = 14 * 86_400

function parseCertificate(name: string, cert: string, key: string, now: Date): Finding[] {
  try {
    const certificate = new X509Certificate(readFileSync(cert))
    const found: Finding[] = []
    const end = certificate.validToDate
    const left = (end.getTime() - now.getTime()) / 1000
    if (left <= 0) found.push(unsafe(name, `${cert} ended on ${formatMoment(end)}`, 'renew it, then SIGHUP'))
    else if (left < SOON_S) found.push(advice(name, `${cert} ends in ${formatDuration(left)}`, 'renew it, then SIGHUP'))
    if (certificate.validFromDate > now) {
      found.push(unsafe(name, `${cert} begins on ${formatMoment(certificate.validFromDate)}`, 'set the clock, or wait'))
    }
    if (isSelfSigned(certificate)) {
      found.push(
        advice(
          name,
          `${cert} is self-signed: clients show a warning`,
          'auth-relay cert --csr NAME makes a request for a real one',
        ),
      )
    }
    if (!certificate.checkPrivateKey(createPrivateKey(readFileSync(key)))) {
      found.push(unsafe(name, `${key} is not the key of ${cert}`, 'set certificate and key to the files of one pair'))
    }
    const { mode } = statSync(key)
    // A system group may read it, for example that of /etc/ssl/private on Debian.
    if ((mode & 0o037) !== 0) found.push(unsafe(name, `${key} is open to others (${octal(mode)})`, `chmod 600 ${key}`))
    return found.length > 0 ? found : [fine(name, `${cert} is good for ${formatDuration(left)}`)]
  } catch (error) {
    if (isAccessDenied(error)) return [...closedPath(error)]
    return [unsafe(name, `cannot use ${cert} and ${key}: ${messageOf(error)}`, 'give a PEM certificate and its key')]
  }
}

/**
 * rcpthosts decides whether qmail is an open relay. Without this file the gate has no effect
 * (qmail-smtpd.8).
 */
function checkQmail({ wrap }: Settings): Finding[] {
  const usesQmail = wrap.smtpd.length === 0 || wrap.smtpd[0]?.startsWith(`${wrap.qmaildir}/`) === true
  const isGate = wrap.listen.length > 0
  if (!usesQmail) {
    const program = wrap.smtpd[0] ?? ''
    if (!isGate) return []
    return isExecutable(program)
      ? [
          fine(
            'wrap.smtpd',
            `${program} can be started; check does not test whether it refuses clients without RELAYCLIENT`,
          ),
        ]
      : [unsafe('wrap.smtpd', `${program} cannot be started`, 'name the real SMTP server by its absolute path')]
  }
  if (!existsSync(wrap.qmaildir)) {
    return isGate
      ? [unsafe('wrap.qmaildir', `${wrap.qmaildir} does not exist`, 'set wrap.qmaildir, or name another smtpd')]
      : []
  }
  const rcpthosts = join(wrap.qmaildir, 'control/rcpthosts')
  const found: Finding[] = []
  if (!existsSync(rcpthosts)) {
    found.push(
      unsafe(
        rcpthosts,
        'missing: qmail relays for every client, which is an open relay',
        `list your own domains in ${rcpthosts}, one a line`,
      ),
    )
  } else found.push(fine(rcpthosts, 'exists: without RELAYCLIENT only its domains are accepted'))
  const smtpd = wrap.smtpd[0] ?? join(wrap.qmaildir, 'bin', wrap.qmail_smtpd_noauth)
  if (!isExecutable(smtpd) && isGate) {
    found.push(
      unsafe(
        'wrap.qmail_smtpd_noauth',
        `${smtpd} cannot be started`,
        `cp ${join(wrap.qmaildir, 'bin/qmail-smtpd')} ${smtpd}`,
      ),
    )
  }
  return found
}

/** The programs that decide about passwords. */
function checkChecker({ popup }: Settings): Finding[] {
  if (!servesPop3(popup)) return []
  const programs =
    popup.checker === 'checkpassword'
      ? [['popup.checkpassword', popup.checkpassword] as const]
      : popup.checker === 'chain'
        ? [['popup.checkpassword', popup.checkpassword] as const, ['popup.chain', popup.chain] as const]
        : []
  return programs.map(([name, [program = '']]) =>
    program === ''
      ? unsafe(name, `empty, and popup.checker is "${popup.checker}"`, `name the program, e.g. ["/bin/checkpassword"]`)
      : !program.startsWith('/') || isExecutable(program)
        ? fine(name, program)
        : unsafe(name, `${program} cannot be started`, 'name a program by its absolute path'),
  )
}

/**
 * A gate that listens or serves needs a separate account, unless it starts smtpds and their account
 * is not named.
 */
const gateHasAccount = ({
  listen,
  smtpd_user,
  policy_listen,
  socketmap_listen,
  query_listen,
  tcprules_cdb,
}: Settings['wrap']) =>
  listen.length > 0
    ? smtpd_user !== ''
    : policy_listen.length + socketmap_listen.length + query_listen.length > 0 || tcprules_cdb !== ''

function checkAccounts({ popup, sslwrap, authd, wrap, statusPage, alerts }: Settings, parts: PartsInUse): Finding[] {
  if (!isRoot())
    return [
      advice(
        'accounts',
        'not started as root: every program would run under one account',
        'start as root, so that each program gets its own account',
      ),
    ]
  const wanted: readonly (readonly [string, string])[] = [
    ['popup.login_user', parts.popup ? popup.login_user : ''],
    ['sslwrap.user', parts.sslwrap ? sslwrap.user : ''],
    ['authd.user', authd.user],
    ['wrap.user', gateHasAccount(wrap) ? wrap.user : ''],
    ['wrap.smtpd_user', wrap.smtpd_user],
    ['status-page.user', statusPage.listen === undefined ? '' : statusPage.user],
    ['alerts.user', parts.alerts ? alerts.user : ''],
  ]
  return wanted.flatMap(([name, account]): Finding[] => {
    if (account === '') {
      if (name === 'wrap.smtpd_user' && wrap.listen.length > 0) {
        return [unsafe(name, 'empty: the gate and the smtpd would run as root', 'name an account, e.g. qmaild')]
      }
      if (name === 'authd.user') {
        return [advice(name, 'empty: authd keeps the rights of root', 'name a separate account, e.g. auth-relay')]
      }
      return []
    }
    if (name === 'wrap.smtpd_user' && wrap.listen.length > 0 && account === wrap.user) {
      const remedy = 'name an account of the smtpd alone, e.g. qmaild'
      return [unsafe(name, `${account} is wrap.user too: an attacker who controls the smtpd controls the gate`, remedy)]
    }
    try {
      const { uid } = idsOf(account, name)
      return uid === 0
        ? [unsafe(name, 'is root', 'name an account without rights')]
        : [fine(name, `${account} (uid ${uid})`)]
    } catch {
      return [
        unsafe(
          name,
          `the account ${account} does not exist`,
          `useradd --system --no-create-home --shell /usr/sbin/nologin ${account}`,
        ),
      ]
    }
  })
}

/**
 * Accounts and groups that a socket or the journal admits. A program does not start if one is
 * missing, except an account of the default of journal_users.
 */
function checkAdmitted({ authd, wrap }: Settings, parts: PartsInUse): Finding[] {
  const usual: unknown = AUTHD.rows.journal_users.default
  const journalUsers = authd.journal_users.filter(account => !(Array.isArray(usual) && usual.includes(account)))
  const admitted = {
    'authd.socket_users': parts.authd ? authd.socket_users : [],
    'authd.usage_users': parts.authd ? authd.usage_users : [],
    'authd.journal_users': parts.authd && authd.journal ? journalUsers : [],
  }
  const accounts = Object.entries(admitted).flatMap(([name, list]) =>
    list.flatMap(account => findingsOfFault(name, () => idsOf(account, name))),
  )
  if (!parts.gate || wrap.socket_group === '') return accounts
  const group = findingsOfFault('wrap.socket_group', () => gidOf(wrap.socket_group, 'wrap.socket_group'))
  return [...accounts, ...group]
}

function findingsOfFault(name: string, read: () => unknown): Finding[] {
  try {
    read()
    return []
  } catch (error) {
    if (!(error instanceof UsageFault)) throw error
    return unsafeBecause(name, error)
  }
}

const statOf = (path: string): Stats | undefined => statSync(path, { throwIfNoEntry: false })

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false // missing, or not accessible for this account: it cannot be started either way
  }
}

const octal = (mode: number): string => (mode & 0o7777).toString(8).padStart(4, '0')
