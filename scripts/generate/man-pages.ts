import { readFileSync, writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { commandTree } from '../../src/auth-relay/command-line.ts'
import { formatSettings } from '../../src/auth-relay/text/settings-text.ts'
import { environmentNameOf } from '../../src/settings/rows.ts'
import { SECTIONS } from '../../src/settings/settings.ts'
import { writeSettingsSchema } from './settings-schema.ts'

const directory = new URL('../../docs/man/', import.meta.url).pathname

/**
 * The manual pages that are made from the code, by file name, so that they agree with the programs.
 */
export const generatedPages = (): Readonly<Record<string, string>> => ({
  'auth-relay.8': commandPage(),
  'auth-relay.toml.5': settingsPage(),
  ...Object.fromEntries(DAEMONS.map(daemon => [`${daemon}.8`, daemonPage(daemon)])),
})

const DAEMONS = ['authd', 'popup', 'pop3d', 'sslwrap', 'wrap'] as const
type Daemon = (typeof DAEMONS)[number]

const COMMON_OPTIONS = `.TP
.B \\-h, \\-\\-help
Print a summary of the options.
.TP
.B \\-V, \\-\\-version
Print the version.
`

const STOPPED = 'Stopped, after all running work had ended.'
const WRONG_USAGE = 'Wrong usage or settings: one line for each fault, with its remedy.'

/** The exit statuses of each daemon. */
const EXIT_STATUSES: Readonly<Record<Daemon, readonly (readonly [status: number, meaning: string])[]>> = {
  authd: [
    [0, STOPPED],
    [100, WRONG_USAGE],
    [111, 'Temporary failure: an address in use, or the embedded database does not run.'],
  ],
  popup: [
    [0, STOPPED],
    [1, 'With a program line: the session has ended, as with qmail-popup.'],
    [100, WRONG_USAGE],
    [111, 'Temporary failure: an address in use, or a process that cannot start.'],
  ],
  pop3d: [
    [0, 'The session has ended, or the worker was stopped.'],
    [100, 'Wrong usage or settings in the environment: one line for each fault, with its remedy.'],
    [111, 'pop3d MAILDIR was started as uid 0, or pop3d --worker without popup.'],
  ],
  sslwrap: [
    [0, `${STOPPED} Without -accept: the client was served.`],
    [100, WRONG_USAGE],
    [111, 'Temporary failure: an address in use, or a worker that cannot serve.'],
  ],
  wrap: [
    [0, STOPPED],
    [100, WRONG_USAGE],
    [
      111,
      'Temporary failure: an address in use, a starter that cannot work, or the embedded database does not run. In front of an smtpd: the smtpd cannot be run.',
    ],
  ],
}

/**
 * A page that people write, apart from the options that all daemons share and the exit statuses.
 */
function daemonPage(daemon: Daemon): string {
  const page = pageOnDisk(`${daemon}.8`)
  const statuses = EXIT_STATUSES[daemon].map(([status, meaning]) => `.TP\n.B ${status}\n${roff(meaning)}\n`).join('')
  return page
    .replace(
      /(?<=^\.SH OPTIONS\n[\s\S]*?)\.TP\n\.B .*\\-help.*\n.*\n(?:\.TP\n\.B .*\\-version.*\n.*\n)?/m,
      () => COMMON_OPTIONS,
    )
    .replace(/(?<=^\.SH EXIT STATUS\n)[\s\S]*?(?=^\.SH )/m, () => statuses)
}

/**
 * Escapes text for a manual page: backslashes, and dots and quotes at the beginning of a line, are
 * special in roff.
 */
const roff = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(/^([.'])/gm, '\\&$1')
    .replaceAll(/[^\x00-\x7e]/gu, character => `\\[u${codeOf(character)}]`)

/**
 * Text that a reader copies from the page. Quotes stay as they are, also in a macro's line, where
 * `"` groups words.
 */
const literal = (text: string): string =>
  roff(text)
    .replaceAll("\\&'", "'")
    .replaceAll(/["'`^~]/g, character => LITERALS[character] ?? character)

/** groff turns these characters into typographic ones in text. */
const LITERALS: Readonly<Record<string, string>> = {
  '"': '\\(dq',
  "'": '\\(aq',
  '`': '\\(ga',
  '^': '\\(ha',
  '~': '\\(ti',
}

/** The groff name of a character that is not ASCII. */
const codeOf = (character: string): string =>
  (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')

const header = (title: string, section: number, name: string, line: string): string =>
  `.\\" Made by scripts/generate/man-pages.ts from the code: change it there.
.TH ${title} ${section} "" "auth\\-relay" "auth\\-relay"
.SH NAME
${roff(name)} \\- ${roff(line)}
`

const PROGRAM = await commandTree({ environment: {}, print: () => {}, isTerminal: false, columns: 80 }, () => {})

function commandPage(): string {
  const verbs = PROGRAM.commands.filter(command => command.name() !== 'help')
  return `${header('AUTH-RELAY', 8, 'auth-relay', "the administrator's command of auth-relay")}.SH SYNOPSIS
.B auth\\-relay
.I verb
[\\fIoptions\\fR]
.SH DESCRIPTION
POP before SMTP: an address may send mail for a limited time after a mailbox was opened from it. This command runs the whole
stack, writes and checks its settings, and shows, adds and removes relay rights.
.PP
For a mistyped verb the command names the nearest one. Tables fit the width of a terminal: less important columns are
omitted, then names are cut. In a pipe they are whole. Colour appears only on a terminal, and not if
.B NO_COLOR
is set.
.SH OPTIONS
.TP
.B \\-h, \\-\\-help
Print a summary; after a verb, its description, options and examples.
.TP
.B \\-V, \\-\\-version
Print the version.
.SH VERBS
${verbs.map(verbSection).join('')}.SH EXIT STATUS
.TP
.B 0
Done; for \\fBexplain\\fR: mail would be relayed; for \\fBcheck\\fR: nothing is unsafe.
.TP
.B 1
No: mail would not be relayed, nothing was found, something is unsafe.
.TP
.B 100
Wrong usage or settings: one line for each fault, with its remedy.
.TP
.B 111
Temporary failure: a port in use, no database. Trying again later may help.
.SH FILES
.TP
.I /etc/auth\\-relay.toml
Settings, unless
.B \\-\\-config
names another file.
.SH SEE ALSO
.BR auth\\-relay.toml (5),
.BR authd (8),
.BR popup (8),
.BR pop3d (8),
.BR sslwrap (8),
.BR wrap (8)
`
}

function verbSection(verb: Command): string {
  if (verb.commands.length === 0) return commandSection(verb, [])
  const actions = verb.commands.map((action, index) => commandSection(action, verb.commands.slice(0, index)))
  return `.SS ${roff(verb.name())} \\fIaction\\fR
${roff(sentence(verb.description()))}
${notesOf(verb)}${actions.join('')}`
}

/** The options that one of the commands in `before` has too are only named. */
function commandSection(command: Command, before: readonly Command[]): string {
  const words = command.registeredArguments.map(argument =>
    argument.required ? argument.name() : `[${argument.name()}]`,
  )
  const name = command.parent?.parent ? `${command.parent.name()} ${command.name()}` : command.name()
  const known = new Set(before.flatMap(({ options }) => options.map(({ long }) => long)))
  const shown = command.options.filter(({ long }) => !known.has(long))
  const options = shown
    .map(({ flags, description, defaultValue }) => {
      const fallback = typeof defaultValue === 'string' ? ` Default: ${defaultValue}.` : ''
      return `.TP\n.B ${literal(flags)}\n${roff(`${sentence(description)}${fallback}`)}\n`
    })
    .join('')
  const others = command.options.flatMap(({ long }) => (long && known.has(long) ? [literal(long)] : []))
  const asAbove = others.length === 0 ? '' : `.PP\nAs above: ${others.join(', ')}.\n`
  return `.SS ${roff([name, ...words].join(' '))}
${roff(sentence(command.description()))}
${options}${asAbove}${notesOf(command)}`
}

function notesOf(command: Command): string {
  const more = helpAfter(command)
  return more === '' ? '' : `.PP\n.nf\n${literal(more)}\n.fi\n`
}

/** Examples and notes: the part of the help after the options. */
function helpAfter(command: Command): string {
  let text = ''
  command.configureOutput({
    writeOut: part => {
      text += part
    },
  })
  command.outputHelp()
  return text.slice(command.helpInformation().length).trim()
}

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.$/, '')}.`

function settingsPage(): string {
  const sections = Object.values(SECTIONS).map(section => {
    const rows = Object.entries(section.rows).map(([name, row]) => {
      const example = formatSettings({ [section.name]: { [name]: row.default } }, { head: [], withDefaults: false })
      const line = example.split('\n').findLast(text => text.includes('=')) ?? `${name} = []`
      const isTable = Array.isArray(row.default) && /\[\[tables\]\]/.test(row.doc)
      const variable = isTable ? '' : ` Environment: ${environmentNameOf(section, name)}.`
      const former = row.formerNames.length === 0 ? '' : ` Former name: ${row.formerNames.join(', ')}.`
      return `.TP\n.B ${literal(line)}\n${roff(`${row.doc}${variable}${former}`)}\n`
    })
    const title = section.name === '' ? 'Top of the file' : `[${section.name}]`
    return `.SS ${roff(title)}\n${roff(section.doc)}\n${rows.join('')}`
  })
  return `${header('AUTH-RELAY.TOML', 5, 'auth-relay.toml', 'settings of auth-relay')}.SH DESCRIPTION
The settings are one TOML file for all programs, with a section for each. Each program reads it at its start and again at SIGHUP.
An environment variable overrides a setting. In the variable, spaces or commas separate the items of a list.
Unknown names are errors. All faults of a file are reported together, each with its line and its remedy.
.PP
.B auth\\-relay init
writes a commented file,
.B auth\\-relay settings
prints each setting with its meaning,
.B auth\\-relay check
checks the file and the host, and shows the settings that are set, with their origin. No daemon starts until
.B configured
is true. A duration has its unit: "800ms", "30s", "5min", "8h", "90d", "1h30min". A number without a unit is valid too; each setting names the unit that it counts.
.SH SETTINGS
Each setting is shown with its default.
${sections.join('')}.SH FILES
.I /etc/auth\\-relay.toml
.SH SEE ALSO
.BR auth\\-relay (8),
.BR authd (8),
.BR popup (8),
.BR pop3d (8),
.BR sslwrap (8),
.BR wrap (8)
`
}

/** The file as it is now; empty if there is none. */
export function pageOnDisk(name: string): string {
  try {
    return readFileSync(`${directory}${name}`, 'utf8')
  } catch {
    return '' // the page does not exist yet
  }
}

if (import.meta.main) {
  for (const [name, text] of Object.entries(generatedPages())) writeFileSync(`${directory}${name}`, text)
  // The page of the settings and the schema are made from the table of settings.
  writeSettingsSchema()
}
