import { resolve } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { Writable } from 'node:stream'
import { UsageFault } from '../../base/errors.ts'
import { accountNamed } from '../../libc/accounts.ts'
import { loadSettingsFile } from '../../settings/settings.ts'
import { PasswordFile } from '../secrets.ts'
import { printable } from '../text/terminal.ts'
import { type Verb, withConfigOption } from '../verb.ts'

/**
 * `auth-relay passwd`: adds, changes or removes an account of popup's passwd_file. On a terminal
 * the command prompts for the password. Otherwise it reads the password from standard input.
 */
export const passwd: Verb = (program, { environment, print }, choose) => {
  withConfigOption(program.command('passwd'))
    .description('add an account to passwd_file, or change its password')
    .argument('<login>', 'login name')
    .option('--file <file>', 'the passwd file; without it popup.passwd_file of the settings')
    .option('--uid <uid>', 'account that owns the maildrop; without it the host account of that name')
    .option(
      '--gid <gid>',
      'group of the owner; without it the old one, the group of the account of that name and uid, or the same number',
    )
    .option('--home <directory>', 'home directory')
    .option('--maildir <path>', 'Maildir, below the home directory or absolute', 'Maildir')
    .option('--remove', 'remove the account')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
The password is the first line of standard input, with or without a line end. On a
terminal the command prompts for it.
Exit status 1 with --remove if there is no such account.

Examples:
  auth-relay passwd ann
  auth-relay passwd ann@example.org --uid 5000 --home /var/vmail/example.org/ann < secret
  auth-relay passwd ann --remove`,
    )
    .action((login: string, options: Options) => {
      // popup reads a line that begins with # as a comment.
      if (!/^(?!#)[^:\s\p{C}]{1,255}$/u.test(login)) {
        throw new UsageFault(
          `${printable(login)} is not a login name: write 1 to 255 characters without colon, space and control character, and no # first`,
        )
      }
      choose({
        kind: 'command',
        run: async () => {
          const popup =
            options.file === undefined
              ? loadSettingsFile(resolve(options.config), environment).settings.popup
              : { passwd_file: options.file, compat: undefined }
          const file = resolve(popup.passwd_file)
          const accounts = new PasswordFile(file)
          const report = (done: 'added' | 'changed' | 'removed' | 'unknown', sentence: string): void =>
            print(options.json === true ? `${JSON.stringify({ login, file, done })}\n` : `${sentence}\n`)
          if (options.remove === true) {
            if (!accounts.remove(login)) {
              report('unknown', `There is no account ${login} in ${file}.`)
              return 1
            }
            report('removed', `Removed ${login} from ${file}.`)
            return 0
          }
          const known = accounts.has(login)
          const tail = tailOf(login, options, accounts.tailOf(login))
          await accounts.setPassword(login, await readPassword(login, popup.compat), tail)
          if (known) report('changed', `Changed the password of ${login} in ${file}. The change takes effect at once.`)
          else report('added', `Added ${login} in ${file}. The change takes effect at once.`)
          return 0
        },
      })
    })
}

type Options = {
  config: string
  file?: string
  uid?: string
  gid?: string
  home?: string
  maildir?: string
  remove?: true
  json?: true
}

/**
 * `uid:gid:home:maildir` of the line. Missing fields come from the old line, then from the host's
 * account.
 */
function tailOf(login: string, { uid, gid, home, maildir }: Options, old: string | undefined): string {
  const [oldUid, oldGid, oldHome, oldMaildir] = old?.split(':') ?? []
  const account = accountNamed(login)
  const owner = numberOf(uid, '--uid') ?? oldUid ?? account?.uid.toString()
  // A group goes with its uid: the group of another uid would open that uid's files to the owner of
  // this mail.
  const ofOwner = [
    { uid: oldUid, gid: oldGid },
    { uid: account?.uid.toString(), gid: account?.gid.toString() },
  ].find(known => known.uid === owner)
  const group = numberOf(gid, '--gid') ?? ofOwner?.gid ?? owner
  const directory = home ?? oldHome ?? account?.home
  if (owner === undefined || group === undefined || directory === undefined) {
    throw new UsageFault(
      `this host has no account ${login}: name the owner of the maildrop and its place: --uid 5000 --home /var/vmail/${login}`,
    )
  }
  if (!directory.startsWith('/') || /[:\p{C}]/u.test(directory)) {
    throw new UsageFault(
      `--home ${printable(directory)} is not a home directory: write an absolute path without a colon`,
    )
  }
  const drop =
    maildir === undefined || (maildir === 'Maildir' && oldMaildir !== undefined) ? (oldMaildir ?? 'Maildir') : maildir
  return `${owner}:${group}:${directory}:${drop}`
}

function numberOf(text: string | undefined, option: string): string | undefined {
  if (text !== undefined && !/^\d{1,10}$/.test(text))
    throw new UsageFault(`${option} ${printable(text)} is not a number: write the id, such as 5000`)
  return text
}

/** Prompts twice on a terminal, without echo; otherwise reads the first line of standard input. */
async function readPassword(login: string, compat: 'none' | 'qmail' | undefined): Promise<string> {
  const isTerminal = process.stdin.isTTY === true
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: silent, terminal: isTerminal })
  try {
    const ask = async (prompt: string): Promise<string> => {
      if (isTerminal) process.stderr.write(prompt)
      const answer = await nextLine(lines)
      if (isTerminal) process.stderr.write('\n')
      return answer
    }
    const password = await ask(`Password of ${login}: `)
    if (password === '') throw new UsageFault('no password was given: write it on the first line of standard input')
    if (compat === 'qmail' && password.startsWith(' ')) {
      throw new UsageFault(
        'a password must not begin with a space: with compat = "qmail" popup skips the spaces after PASS, as qmail does',
      )
    }
    if (password.toLowerCase() === 'password')
      throw new UsageFault('attackers try this password first: choose another one')
    if (/\p{Cc}/u.test(password)) throw new UsageFault('the password contains a control character: choose another one')
    if (isTerminal && (await ask('Again: ')) !== password)
      throw new UsageFault('the two passwords differ: run the command again')
    return password
  } finally {
    lines.close()
  }
}

/** Returns the next line, also one that ends with the input; empty if there is none. */
function nextLine(lines: Interface): Promise<string> {
  return new Promise(resolve => {
    lines.once('line', resolve)
    // At its close readline emits the rest of its input as a line.
    lines.once('close', () => resolve(''))
  })
}
