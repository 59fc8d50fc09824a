import { lexer, type Token } from 'marked'
import ts from 'typescript'
import { isScalar, LineCounter, parseAllDocuments, visit as visitYaml } from 'yaml'

/**
 * A heading, a paragraph, a list item, a table cell, a comment or a test's title, without its
 * markup.
 */
export interface Block {
  readonly kind: 'heading' | 'text' | 'comment' | 'title'
  /** Line of the file at which the block begins, from 1. */
  readonly line: number
  /** Headings above the block, the outermost first. */
  readonly section: readonly string[]
  readonly text: string
}

/** Stands for a code span, whose text the rules do not check. */
const CODE = 'CODE'

const linesIn = (text: string): number => text.split('\n').length - 1

/** The words of inline tokens, with each code span as one word. */
function wordsOf(tokens: readonly Token[]): string {
  return tokens
    .map(token => {
      if (token.type === 'codespan') return CODE
      if (token.type === 'br') return ' '
      if (token.type === 'html' || token.type === 'image') return ''
      if ('tokens' in token && token.tokens !== undefined) return wordsOf(token.tokens)
      return 'text' in token && typeof token.text === 'string' ? token.text : ''
    })
    .join('')
    .replaceAll(/\s+/g, ' ')
}

/** Blocks of a Markdown document. Code blocks and HTML are left out. */
export function readMarkdown(text: string): Block[] {
  const blocks: Block[] = []
  const headings: string[] = []

  const add = (kind: Block['kind'], line: number, words: string): void => {
    if (words.trim() !== '') blocks.push({ kind, line, section: [...headings], text: words.trim() })
  }

  const walk = (tokens: readonly Token[], firstLine: number): void => {
    let line = firstLine
    for (const token of tokens) {
      visit(token, line)
      line += linesIn(token.raw)
    }
  }

  const visit = (token: Token, line: number): void => {
    switch (token.type) {
      case 'heading': {
        const words = wordsOf(token.tokens ?? [])
        headings.length = Math.min(headings.length, token['depth'] - 1)
        headings.push(words)
        add('heading', line, words)
        break
      }
      case 'paragraph':
        add('text', line, wordsOf(token.tokens ?? []))
        break
      case 'text':
        add('text', line, wordsOf('tokens' in token && token.tokens !== undefined ? token.tokens : [token]))
        break
      case 'table':
        for (const cell of token['header']) add('heading', line, wordsOf(cell.tokens))
        for (const [row, cells] of token['rows'].entries())
          for (const cell of cells) add('text', line + 2 + row, wordsOf(cell.tokens))
        break
      case 'list':
        walk(token['items'], line)
        break
      case 'list_item':
      case 'blockquote':
        walk(token.tokens ?? [], line)
        break
      default:
    }
  }

  walk(lexer(text), 1)
  return blocks
}

/** Comments for tools, not for readers. */
const DIRECTIVE = /^\s*(biome-ignore|@ts-|v8 ignore|c8 ignore|<reference)/

/** The comments of a TypeScript file in order. */
function commentRanges(text: string): { readonly file: ts.SourceFile; readonly ranges: readonly ts.CommentRange[] } {
  const file = ts.createSourceFile('file.ts', text, ts.ScriptTarget.Latest, true)
  const ranges = new Map<number, ts.CommentRange>()
  const visit = (node: ts.Node): void => {
    for (const range of ts.getLeadingCommentRanges(text, node.pos) ?? []) ranges.set(range.pos, range)
    for (const range of ts.getTrailingCommentRanges(text, node.end) ?? []) ranges.set(range.pos, range)
    for (const child of node.getChildren(file))
      if (child.kind < ts.SyntaxKind.FirstJSDocNode || child.kind > ts.SyntaxKind.LastJSDocNode) visit(child)
  }
  visit(file)
  return { file, ranges: [...ranges.values()].sort((a, b) => a.pos - b.pos) }
}

/** Numbers of the lines, from 1, that contain a part of a comment. */
export function commentLines(text: string): ReadonlySet<number> {
  const { file, ranges } = commentRanges(text)
  const lineOf = (position: number): number => file.getLineAndCharacterOfPosition(position).line + 1
  const lines = new Set<number>()
  for (const { pos, end } of ranges) for (let line = lineOf(pos); line <= lineOf(end); line += 1) lines.add(line)
  return lines
}

/** Blocks of a comment that begins at `line`. A blank line in the comment begins a new block. */
const blocksOfComment = (line: number, text: string): Block[] =>
  readMarkdown(text).map(part => ({ ...part, kind: 'comment', line: line + part.line - 1 }))

/**
 * Comments of a TypeScript file as blocks. Neighbouring `//` lines are one comment, and a blank
 * line in a comment begins a new block.
 */
export function readComments(text: string): Block[] {
  const { file, ranges } = commentRanges(text)
  const blocks: Block[] = []
  let previousEnd = -1
  for (const { pos, end } of ranges) {
    const raw = text.slice(pos, end)
    const line = file.getLineAndCharacterOfPosition(pos).line + 1
    const words = raw
      .replace(/^\/\*+|^\/\/|\*\/$/g, '')
      .replaceAll(/^[ \t]*\*[ \t]?/gm, '')
      .replace(/^ /, '')
    const isContinuation = raw.startsWith('//') && /^\s*$/.test(text.slice(previousEnd, pos)) && previousEnd >= 0
    previousEnd = raw.startsWith('//') ? end : -1
    const last = blocks.at(-1)
    if (isContinuation && last?.kind === 'comment' && !text.slice(0, pos).endsWith('\n\n'))
      blocks[blocks.length - 1] = { ...last, text: `${last.text}\n${words}` }
    else if (!DIRECTIVE.test(words)) blocks.push({ kind: 'comment', line, section: [], text: words })
  }
  return blocks.flatMap(block => blocksOfComment(block.line, block.text))
}

/** An indented line of a comment is an example, such as a command. */
const withoutExamples = (words: string): string => words.replaceAll(/^ {2,}\S.*$/gm, '')

/** A line of code, a setting or a tool's directive behind the marker, not a sentence. */
const NO_SENTENCE = /^(?:!|\S*=|[-=─#*]+$|\s*(?:shellcheck|yaml-language-server)\b)/

/**
 * Comments of a file in which `marker` begins a comment that ends with its line. Neighbouring lines
 * that begin with the marker are one comment. A comment behind code is a separate comment.
 */
export function readLineComments(text: string, marker: '#' | '--' | ';;'): Block[] {
  const comments: { readonly line: number; readonly words: string[] }[] = []
  let isOpen = false
  for (const [index, line] of text.split('\n').entries()) {
    const whole = line.trimStart().startsWith(marker)
    const [, words] = new RegExp(whole ? `^\\s*${marker}+ ?(.*)$` : `\\s${marker} ([^'"]*)$`).exec(line) ?? []
    const isComment = words !== undefined && !NO_SENTENCE.test(words)
    if (isComment && whole && isOpen) comments.at(-1)?.words.push(words)
    else if (isComment) comments.push({ line: index + 1, words: [words] })
    isOpen = isComment && whole
  }
  return comments.flatMap(({ line, words }) => blocksOfComment(line, withoutExamples(words.join('\n'))))
}

/** Comments of a file with the syntax of C. */
export const readBlockComments = (text: string): Block[] =>
  [...text.matchAll(/\/\*([\s\S]*?)\*\//g)].flatMap(({ 1: words = '', index }) =>
    blocksOfComment(linesIn(text.slice(0, index)) + 1, withoutExamples(words.replaceAll(/^[ \t]*\* ?/gm, ''))),
  )

/** Functions of the tests that take a title. */
const TITLED = new Set(['describe', 'describeWith', 'it', 'property', 'test'])

/** Name of the function that a call begins with: `test` of `test.skipIf(a).each(b)('title')`. */
function calledName(node: ts.Expression): string | undefined {
  if (ts.isIdentifier(node)) return node.text
  if (ts.isTaggedTemplateExpression(node)) return calledName(node.tag)
  return ts.isPropertyAccessExpression(node) || ts.isCallExpression(node) ? calledName(node.expression) : undefined
}

/** Text of a literal, with each expression in a template as one word. */
const textOf = (node: ts.Node): string | undefined => {
  if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) return node.text
  return ts.isTemplateExpression(node)
    ? node.head.text + node.templateSpans.map(({ literal }) => CODE + literal.text).join('')
    : undefined
}

/**
 * Titles of tests and of groups of tests. A value that the runner inserts (`%s`, `$name`) is one
 * word.
 */
export function readTitles(text: string): Block[] {
  const file = ts.createSourceFile('file.ts', text, ts.ScriptTarget.Latest, true)
  const blocks: Block[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && TITLED.has(calledName(node.expression) ?? '')) {
      // The title stands before the body; `describeWith` has the needs before the title.
      const title = node.arguments.slice(0, 2).find(argument => textOf(argument) !== undefined)
      const words = title === undefined ? undefined : textOf(title)
      if (title !== undefined && words !== undefined)
        blocks.push({
          kind: 'title',
          line: file.getLineAndCharacterOfPosition(title.getStart(file)).line + 1,
          section: [],
          text: words.replaceAll(/%[sdifjo]|\$[a-z][\w.]*/g, CODE),
        })
    }
    ts.forEachChild(node, visit)
  }
  visit(file)
  return blocks
}

/**
 * A text that no administrator reads: SQL, a style sheet, a picture, or too short for a sentence.
 */
const isNoMessage = (text: string): boolean =>
  /\b(?:SELECT|INSERT|UPDATE|DELETE|CREATE|GRANT|WITH)\b|[{;]\s*--?[\w-]+:|\r\n|<svg/.test(text) ||
  text.trim().split(/\s+/).length < 4

/**
 * Messages and help texts: string literals and templates of a TypeScript file with at least four
 * words. SQL and tagged templates are left out. A blank line, or a line that is indented, begins a
 * new block.
 */
export function readMessages(text: string): Block[] {
  const file = ts.createSourceFile('file.ts', text, ts.ScriptTarget.Latest, true)
  const blocks: Block[] = []
  const add = (node: ts.Node, words: string): void => {
    if (isNoMessage(words)) return
    const line = file.getLineAndCharacterOfPosition(node.getStart(file)).line + 1
    for (const part of words.split(/\n\s*\n|\n(?=\s{2})/))
      if (part.trim() !== '')
        blocks.push({ kind: 'text', line, section: [], text: part.replaceAll(/\s+/g, ' ').trim() })
  }
  const visit = (node: ts.Node): void => {
    if (ts.isTaggedTemplateExpression(node)) return
    const words = textOf(node)
    if (words !== undefined) add(node, words)
    ts.forEachChild(node, visit)
  }
  visit(file)
  return blocks
}

/** Descriptions of tables, columns and views in SQL (`COMMENT ON … IS 'text'`). */
export const readDescriptions = (text: string): Block[] =>
  [...text.matchAll(/^COMMENT ON [A-Z]+ [\w.]+ IS\s+'((?:[^']|'')*)'/gm)].map(({ 1: words = '', index }) => ({
    kind: 'text',
    line: linesIn(text.slice(0, index)) + 1,
    section: [],
    text: words.replaceAll("''", "'").replaceAll(/\s+/g, ' '),
  }))

/** Keys of YAML and JSON whose values are texts for a reader. */
const TEXT_KEYS = new Set<unknown>(['description', 'help', 'summary', 'title'])

/** Texts for a reader in YAML, or in JSON, which is a part of YAML. */
export function readValues(text: string): Block[] {
  const counter = new LineCounter()
  const blocks: Block[] = []
  for (const document of parseAllDocuments(text, { lineCounter: counter }))
    visitYaml(document, {
      Pair(_, { key, value }) {
        if (!isScalar(key) || !TEXT_KEYS.has(key.value) || !isScalar(value) || typeof value.value !== 'string') return
        const { line } = counter.linePos(value.range?.[0] ?? 0)
        blocks.push({ kind: 'text', line, section: [], text: value.value.replaceAll(/\s+/g, ' ').trim() })
      },
    })
  return blocks
}

/**
 * Texts of at least four words that a shell script prints with `echo` or `printf`. A variable is
 * one word.
 */
export const readShellOutput = (text: string): Block[] =>
  [...text.matchAll(/^[^#\n]*?\b(?:echo|printf) (['"])((?:(?!\1)[^\n])+)\1/gm)]
    .map(
      ({ 2: words = '', index }): Block => ({
        kind: 'text',
        line: linesIn(text.slice(0, index)) + 1,
        section: [],
        text: words
          .replaceAll(/\$\w+|\$\{[^}]*\}|%s/g, CODE)
          .replaceAll(/(?:\\[nrt])+/g, ' ')
          .trim(),
      }),
    )
    .filter(block => !isNoMessage(block.text))

/** Blocks of a manual page in man(7) macros. Examples between `.nf` and `.fi` are left out. */
export function readManualPage(text: string): Block[] {
  const blocks: Block[] = []
  let section: string[] = []
  let isExample = false
  let isTag = false
  let paragraph: { line: number; words: string[] } | undefined
  const finish = (): void => {
    if (paragraph !== undefined)
      blocks.push({ kind: 'text', line: paragraph.line, section, text: paragraph.words.join(' ') })
    paragraph = undefined
  }
  for (const [index, raw] of text.split('\n').entries()) {
    const [, macro, rest = ''] = /^\.(\\"|[A-Za-z]+) ?(.*)$/.exec(raw) ?? []
    if (macro === 'nf' || macro === 'EX') isExample = true
    if (macro === 'fi' || macro === 'EE') isExample = false
    const isFont = macro !== undefined && /^[BIR]{1,2}$/.test(macro)
    if (macro !== undefined && !isFont) finish()
    if (macro === 'SH' || macro === 'SS') section = [rest.replaceAll('"', '')]
    // The line behind .TP is the name of the setting or option that the paragraph explains.
    if (macro === 'TP') isTag = true
    else if (isTag && (macro === undefined || isFont)) isTag = false
    else if (!isExample && (macro === undefined || isFont) && raw.trim() !== '') {
      paragraph ??= { line: index + 1, words: [] }
      paragraph.words.push(isFont ? CODE + (/[.,:;]$/.exec(rest)?.[0] ?? '') : plainText(raw))
    }
  }
  finish()
  return blocks
}

/** Text of a roff line: fonts in the line mark names, escapes are characters. */
const plainText = (line: string): string =>
  line
    .replaceAll(/\\f[BI](.*?)\\f[RP]/g, CODE)
    .replaceAll(/\\\((dq|aq)/g, "'")
    .replaceAll('\\-', '-')
    .replaceAll(/\\\[u2013\]|\\\(en/g, '–')
    .replaceAll('\\&', '')
    .replaceAll(/\\\[u[0-9A-F]+\]/g, '…')
