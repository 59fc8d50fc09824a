/** Writes docs/LOG-EVENTS.md from the table of log events, and finds the log calls in src/. */

import { globSync, readFileSync, writeFileSync } from 'node:fs'
import ts from 'typescript'
import { FLAG_FIELDS, LOG_CONTEXTS, LOG_FIELDS, type LogLevel } from '../../src/base/log-events/row.ts'
import { LOG_EVENT_SECTIONS } from '../../src/base/log-events.ts'

const root = new URL('../../', import.meta.url).pathname
const PAGE = `${root}docs/LOG-EVENTS.md`

const INTRODUCTION = `# Log events

Each program writes its log to standard error, one line for each event:

\`\`\`
authd: level=info event=grant_stored id=7f3a.12 ip=192.0.2.7 user=ann daemon=dovecot source=tcp until=1764000000
\`\`\`

The names, levels and fields below are stable from the first release on. The cause of an event stands in the field \`reason\`. A value with
spaces or quotes stands in quotes; a character that cannot be printed is written as \`\\u{…}\`. A field that is
true or false is \`1\` or \`0\`, as in the formats of [WIRE](WIRE.md). The setting \`log_level\` leaves out the levels
below it. The line for the mail log (\`authrelay v=1 ev=login …\`) is another format: see [WIRE](WIRE.md).

The lines of some parts of the programs carry further fields in front of those of the event: see [Fields of every line](#fields-of-every-line).

This page is made by \`node scripts/generate/log-events.ts\` from \`src/base/log-events.ts\`.
`

/** The text of docs/LOG-EVENTS.md. */
export function logEventsPage(): string {
  const sections = LOG_EVENT_SECTIONS.map(({ title, rows }) => {
    const lines = Object.entries(rows)
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([event, { levels, fields, reasons, causes, meaning, action }]) => {
        const values =
          causes !== undefined
            ? Object.entries(causes).map(([reason, cause]) => ` Reason ${code(reason)}: ${cause}.`)
            : reasons === undefined
              ? []
              : [` Values of \`reason\`: ${reasons.map(code).join(', ')}.`]
        return row([
          code(event),
          levels.join(', '),
          fields.map(code).join(' '),
          meaning + values.join(''),
          action ?? '',
        ])
      })
    return `## ${title}\n\n${head(['event', 'level', 'fields', 'meaning', 'what to do'])}${lines.join('')}`
  })
  const flags: readonly string[] = FLAG_FIELDS
  const fields = Object.entries(LOG_FIELDS).map(([name, meaning]) =>
    row([code(name), flags.includes(name) ? `${meaning}: ${code('1')} or ${code('0')}` : meaning]),
  )
  const contexts = LOG_CONTEXTS.map(({ part, fields: names }) => row([part, names.map(code).join(' ')]))
  const everyLine = `## Fields of every line\n\n${head(['part', 'fields of every line'])}${contexts.join('')}`
  return [INTRODUCTION, ...sections, everyLine, `## Fields\n\n${head(['field', 'meaning'])}${fields.join('')}`].join(
    '\n',
  )
}

const code = (text: string): string => `\`${text}\``
const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |\n`
const head = (titles: readonly string[]): string => row(titles) + row(titles.map(() => '---'))

/** The page as it is now; empty if there is none. */
export function logEventsOnDisk(): string {
  try {
    return readFileSync(PAGE, 'utf8')
  } catch {
    return '' // the page does not exist yet
  }
}

/** Every string literal in src/ outside the tables of log events. */
export const literalsOfSource = (): ReadonlySet<string> => {
  const found = new Set<string>()
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteral(node)) found.add(node.text)
    ts.forEachChild(node, visit)
  }
  for (const file of globSync('src/**/*.ts', { cwd: root, exclude: ['src/base/log-events/**'] }))
    visit(ts.createSourceFile(file, readFileSync(`${root}${file}`, 'utf8'), ts.ScriptTarget.Latest, true))
  return found
}

/**
 * A call of a log. `event` is undefined if the call computes it, so that a search cannot find it.
 * `reasons`: each literal text of the field `reason`.
 */
export type LogCall = {
  readonly place: string
  readonly level: LogLevel
  readonly event: string | undefined
  readonly reasons: readonly string[]
}

/** Every log call in src/. */
export const logCallsOfSource = (): readonly LogCall[] =>
  globSync('src/**/*.ts', { cwd: root })
    .sort()
    .flatMap(file => logCalls(file, readFileSync(`${root}${file}`, 'utf8')))

/** Fields of each call of `with` of a log in src/, in the order of the call. */
export const logContextsOfSource = (): readonly (readonly string[])[] =>
  globSync('src/**/*.ts', { cwd: root })
    .filter(file => file !== 'src/base/log.ts')
    .sort()
    .flatMap(file => logContexts(readFileSync(`${root}${file}`, 'utf8')))

/** Fields of each call of `with` of a log in a text. A field that is not a plain name is `…`. */
export function logContexts(text: string): readonly (readonly string[])[] {
  const found: (readonly string[])[] = []
  const visit = (node: ts.Node): void => {
    const called = ts.isCallExpression(node) ? node.expression : undefined
    if (ts.isCallExpression(node) && called !== undefined && ts.isPropertyAccessExpression(called)) {
      const [fields] = node.arguments
      if (called.name.text === 'with' && isLog(called.expression))
        found.push(
          fields !== undefined && ts.isObjectLiteralExpression(fields)
            ? fields.properties.map(({ name }) => (name !== undefined && ts.isIdentifier(name) ? name.text : '…'))
            : ['…'],
        )
    }
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile('a.ts', text, ts.ScriptTarget.Latest, true))
  return found
}

/**
 * The log calls in a text: a method debug, info, warn or error of an object that is called log, and
 * `formatLogLine` with a level that is a literal.
 */
export function logCalls(file: string, text: string): readonly LogCall[] {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const found: LogCall[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node)) {
      const { level, event, fields } = partsOf(node)
      if (level !== undefined) {
        const { line } = source.getLineAndCharacterOfPosition(node.getStart(source))
        const reasons = reasonsOf(fields)
        for (const name of textsOf(event)) found.push({ place: `${file}:${line + 1}`, level, event: name, reasons })
      }
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return found
}

function partsOf({ expression, arguments: words }: ts.CallExpression) {
  const [first, second, third, fourth] = words
  if (!ts.isIdentifier(expression) || expression.text !== 'formatLogLine')
    return { level: levelOf(expression), event: first, fields: second }
  const level = second !== undefined && ts.isStringLiteral(second) && isLevel(second.text) ? second.text : undefined
  return { level, event: third, fields: fourth }
}

function reasonsOf(fields: ts.Expression | undefined): readonly string[] {
  if (fields === undefined || !ts.isObjectLiteralExpression(fields)) return []
  return fields.properties
    .filter(ts.isPropertyAssignment)
    .filter(({ name }) => ts.isIdentifier(name) && name.text === 'reason')
    .flatMap(({ initializer }) => textsOf(initializer))
    .filter(text => text !== undefined)
}

const LEVELS: ReadonlySet<string> = new Set<LogLevel>(['debug', 'info', 'warn', 'error'])
const isLevel = (text: string): text is LogLevel => LEVELS.has(text)

function levelOf(called: ts.Expression): LogLevel | undefined {
  if (!ts.isPropertyAccessExpression(called) || !isLevel(called.name.text)) return undefined
  return isLog(called.expression) ? called.name.text : undefined
}

const isLog = (expression: ts.Expression): boolean => /log$/i.test(nameOf(expression))

/** `log` of `this.#options.log`, of `log()` and of `createLog(program)`. */
function nameOf(expression: ts.Expression): string {
  if (ts.isCallExpression(expression)) return nameOf(expression.expression)
  if (ts.isPropertyAccessExpression(expression)) {
    return expression.name.text === 'with' ? nameOf(expression.expression) : expression.name.text
  }
  return ts.isIdentifier(expression) ? expression.text : ''
}

function textsOf(event: ts.Expression | undefined): readonly (string | undefined)[] {
  if (event === undefined) return [undefined]
  if (ts.isStringLiteral(event)) return [event.text]
  if (ts.isConditionalExpression(event)) return [...textsOf(event.whenTrue), ...textsOf(event.whenFalse)]
  return [undefined]
}

if (import.meta.main) writeFileSync(PAGE, logEventsPage())
