/**
 * Checks the rooms of src/ (docs/ARCHITECTURE.md, "Rooms") in the current directory.
 * .dependency-cruiser.cjs has the import rule; this script checks the rules that a list of imports
 * cannot show. It reads the syntax tree, because a statement may span several lines and an import
 * has several forms.
 */
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { cruise } from 'dependency-cruiser'
import extractDepcruiseOptions from 'dependency-cruiser/config-utl/extract-depcruise-options'
import extractTsConfig from 'dependency-cruiser/config-utl/extract-ts-config'
import ts from 'typescript'

/** Maximum number of files in one folder, so that a reader can survey it. */
const MOST_FILES = 15
/** Maximum number of lines of one file. */
const MOST_LINES = 499

const NO_SUBJECT = 'a file with several exports begins with a sentence that names their subject'

const PROCESS_EXIT = /^src\/(ucspi|process)\/|\/main\.ts$/
const INTERNALS = 'src/base/node-internals.ts'
const PURE = /^src\/(pop3|smtp|wire|syslog)\//
const SQL_ROOM = 'src/grants/'
/** Files with statements about the server and not about grants, each with its purpose. */
const SQL_EXEMPT: ReadonlyMap<string, string> = new Map([
  ['src/database/database.ts', 'transactions'],
  ['src/database/find-primary.ts', 'query for the role of a server'],
  ['src/database/connect.ts', 'settings of a session; detection of a pooler'],
  ['src/database/replication.ts', 'replication of a commit; answers of standbys'],
  ['src/database/migrate.ts', 'ledger of migrations'],
  ['src/database/notifications.ts', 'LISTEN'],
])
/** Files that import a module by a computed path, each with the reason. */
const COMPUTED_IMPORT_EXEMPT: ReadonlyMap<string, string> = new Map([
  ['src/libc/native-function.ts', 'finds the prebuilt koffi and loads it with require'],
])

const SQL =
  /^\s*(select|insert\s+into|delete\s+from|update\s+\S+\s+set|merge\s+into|with\s+\w+\s+as|table\s+\w+\s*$|copy\s+\w+\s+(from|to)|set\s+(local|session)|listen\s+\S+$|notify\s+\S+$|truncate\s|lock\s+table|begin$|commit$|rollback$|(create|alter|drop)\s+(or\s+replace\s+)?(table|index|role|function|view|schema|type|database))(?![\w-])|\b(select\s.+\sfrom|insert\s+into\s+\w+|delete\s+from\s+\w+|update\s+\w+\s+set)\b/is
/** Beginning of a sentence for a reader, in contrast to an SQL statement. */
const SENTENCE =
  /^\s*(Select|Insert|Delete|Update|Create|Alter|Drop|Begin|Commit|Table|With|Copy|Listen|Notify|Truncate|Lock|Merge) [a-z]/

/** SQL in any case of letters. It has no form of a sentence. */
const STATEMENT =
  /^\s*(select\s+[\w.*"]+(\s*,\s*[\w.*"]+)*\s+from\s+\w|insert\s+into\s+\w+\s*(\(|values\b|select\b)|delete\s+from\s+\w+\s*($|;|where\b|using\b)|update\s+\w+\s+set\s+\w+\s*=)/i

type Report = (node: ts.Node, rule: string) => void

const files = globSync('src/**/*.ts').map(normalize)
const violations: string[] = []

/** The room that a relative specifier leads to; undefined for a package. */
function roomOf(file: string, specifier: string): string | undefined {
  if (!specifier.startsWith('.')) return undefined
  return join(dirname(file), specifier).split('/')[1]
}

/**
 * Finds a room that exports a name of another room. With such an export, the import rule could not
 * see which room uses the name.
 */
function checkReExports(file: string, source: ts.SourceFile, report: Report): void {
  const rule = 'no re-export across rooms'
  const ownRoom = file.split('/')[1]
  const isOther = (specifier: ts.Expression): boolean => {
    if (!ts.isStringLiteral(specifier)) return false
    const room = roomOf(file, specifier.text)
    return room === undefined ? !specifier.text.startsWith('node:') : room !== ownRoom
  }
  const foreign = new Set<string>()
  for (const statement of source.statements) {
    if (!ts.isImportDeclaration(statement) || !isOther(statement.moduleSpecifier)) continue
    const { name, namedBindings } = statement.importClause ?? {}
    if (name !== undefined) foreign.add(name.text)
    if (namedBindings === undefined) continue
    if (ts.isNamespaceImport(namedBindings)) foreign.add(namedBindings.name.text)
    else for (const element of namedBindings.elements) foreign.add(element.name.text)
  }
  const isForeign = (node: ts.Node | undefined): boolean => {
    if (node === undefined) return false
    if (ts.isIdentifier(node)) return foreign.has(node.text)
    if (ts.isPropertyAccessExpression(node)) return isForeign(node.expression)
    if (ts.isQualifiedName(node)) return isForeign(node.left)
    if (ts.isTypeReferenceNode(node)) return node.typeArguments === undefined && isForeign(node.typeName)
    if (ts.isTypeQueryNode(node)) return isForeign(node.exprName)
    if (
      ts.isParenthesizedExpression(node) ||
      ts.isSatisfiesExpression(node) ||
      ts.isAsExpression(node) ||
      ts.isNonNullExpression(node)
    )
      return isForeign(node.expression)
    if (ts.isParenthesizedTypeNode(node)) return isForeign(node.type)
    if (ts.isObjectLiteralExpression(node)) return node.properties.some(isForeignMember)
    return false
  }
  const isForeignMember = (member: ts.ObjectLiteralElementLike): boolean => {
    if (ts.isShorthandPropertyAssignment(member)) return isForeign(member.name)
    return ts.isSpreadAssignment(member) && isForeign(member.expression)
  }
  // A local name of a foreign name is foreign too, and so is a local name of that name.
  for (const statement of source.statements) {
    if (ts.isTypeAliasDeclaration(statement) && isForeign(statement.type)) foreign.add(statement.name.text)
    if (!ts.isVariableStatement(statement)) continue
    for (const { name, initializer } of statement.declarationList.declarations) {
      if (!isForeign(initializer)) continue
      if (ts.isIdentifier(name)) foreign.add(name.text)
      else for (const part of name.elements) if (ts.isBindingElement(part)) foreign.add(part.name.getText())
    }
  }
  for (const statement of source.statements) {
    if (ts.isExportDeclaration(statement)) {
      if (statement.moduleSpecifier !== undefined) {
        if (isOther(statement.moduleSpecifier)) report(statement, rule)
      } else if (statement.exportClause !== undefined && ts.isNamedExports(statement.exportClause)) {
        for (const element of statement.exportClause.elements)
          if (isForeign(element.propertyName ?? element.name)) report(element, rule)
      }
    } else if (ts.isExportAssignment(statement)) {
      if (isForeign(statement.expression)) report(statement, rule)
    } else if (!isExported(statement)) {
      // A name that is not exported is not checked.
    } else if (ts.isVariableStatement(statement)) {
      for (const declaration of statement.declarationList.declarations)
        if (isForeign(declaration.initializer)) report(declaration, rule)
    } else if (ts.isTypeAliasDeclaration(statement)) {
      if (isForeign(statement.type)) report(statement, rule)
    } else if (ts.isInterfaceDeclaration(statement)) {
      const parents = (statement.heritageClauses ?? []).flatMap(({ types }) => types)
      const isName = statement.members.length === 0
      if (isName && parents.some(({ expression }) => isForeign(expression))) report(statement, rule)
    } else if (ts.isImportEqualsDeclaration(statement)) report(statement, rule)
  }
}

const isExported = (statement: ts.Statement): boolean =>
  ts.canHaveModifiers(statement) &&
  (ts.getModifiers(statement) ?? []).some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)

function checkNodes(file: string, source: ts.SourceFile, report: Report): void {
  const declared = new Set<string>()
  const collect = (node: ts.Node): void => {
    if (
      (ts.isParameter(node) || ts.isVariableDeclaration(node) || ts.isBindingElement(node)) &&
      ts.isIdentifier(node.name)
    )
      declared.add(node.name.text)
    ts.forEachChild(node, collect)
  }
  collect(source)
  const visit = (node: ts.Node): void => {
    checkSql(file, node, report)
    checkProcessExit(file, node, report)
    checkInternals(file, node, report)
    checkPurity(file, node, declared, report)
    checkImports(file, node, report)
    ts.forEachChild(node, visit)
  }
  visit(source)
}

/**
 * The text of an expression, with a placeholder for each computed part; undefined if the value is
 * not a text.
 */
function textOf(node: ts.Node): string | undefined {
  if (ts.isStringLiteralLike(node)) return node.text
  if (ts.isTemplateExpression(node))
    return node.head.text + node.templateSpans.map(({ literal }) => `computed${literal.text}`).join('')
  if (ts.isParenthesizedExpression(node)) return textOf(node.expression)
  if (ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.PlusToken) {
    const [left, right] = [textOf(node.left), textOf(node.right)]
    return left === undefined && right === undefined ? undefined : `${left ?? 'computed'}${right ?? 'computed'}`
  }
  if (
    ts.isCallExpression(node) &&
    ts.isPropertyAccessExpression(node.expression) &&
    node.expression.name.text === 'join' &&
    ts.isArrayLiteralExpression(node.expression.expression)
  ) {
    const [separator] = node.arguments
    const between = separator === undefined ? ',' : (textOf(separator) ?? ' ')
    return node.expression.expression.elements.map(element => textOf(element) ?? 'computed').join(between)
  }
  return undefined
}

function checkSql(file: string, node: ts.Node, report: Report): void {
  if (file.startsWith(SQL_ROOM) || SQL_EXEMPT.has(file)) return
  const text = textOf(node)
  if (text === undefined) return
  // Only the largest expression is checked, not its parts a second time.
  if (node.parent !== undefined && textOf(node.parent) !== undefined) return
  const statement = text.replace(/--.*$/gm, ' ')
  if (STATEMENT.test(statement) || (SQL.test(statement) && !SENTENCE.test(statement)))
    report(node, 'SQL text belongs to grants and sql/')
}

function checkProcessExit(file: string, node: ts.Node, report: Report): void {
  if (PROCESS_EXIT.test(file)) return
  const rule = 'process.exit belongs to main.ts, ucspi and process'
  const isProcess = (expression: ts.Node | undefined): boolean =>
    expression !== undefined && ts.isIdentifier(expression) && expression.text === 'process'
  if (ts.isPropertyAccessExpression(node) && isProcess(node.expression) && node.name.text === 'exit') report(node, rule)
  if (ts.isElementAccessExpression(node) && isProcess(node.expression) && textOf(node.argumentExpression) === 'exit')
    report(node, rule)
  if (ts.isVariableDeclaration(node) && ts.isObjectBindingPattern(node.name) && isProcess(node.initializer))
    for (const element of node.name.elements)
      if ((element.propertyName ?? element.name).getText() === 'exit') report(element, rule)
  if (ts.isImportDeclaration(node) && /^(node:)?process$/.test(textOf(node.moduleSpecifier) ?? '')) report(node, rule)
}

/** Names of internals, including those that src/ does not use today. */
const INTERNAL_NAME =
  /^(_handle|_tlsError|newListener|removeListener|onticketkeycallback|enableTicketKeyCallback|_[a-z]\w+State)$/

function checkInternals(file: string, node: ts.Node, report: Report): void {
  if (file === INTERNALS) return
  const name = ts.isStringLiteralLike(node)
    ? node.text
    : ts.isPropertyAccessExpression(node) && node.name.text.startsWith('_')
      ? node.name.text
      : undefined
  if (name !== undefined && INTERNAL_NAME.test(name)) report(node, `internals of the runtime belong to ${INTERNALS}`)
}

/** Names of the runtime that read the time, wait, or reach outside of the process. */
const IMPURE: ReadonlySet<string> = new Set([
  'crypto',
  ...['process', 'performance', 'fetch', 'globalThis', 'console', 'queueMicrotask', 'structuredClone'],
  ...['setTimeout', 'setInterval', 'setImmediate', 'Promise', 'WebSocket'],
])

/** `declared`: names that the file itself declares. */
function checkPurity(file: string, node: ts.Node, declared: ReadonlySet<string>, report: Report): void {
  if (!PURE.test(file)) return
  const rule = 'pop3, smtp, wire and syslog are pure: no async, no clock, no I/O'
  if (node.kind === ts.SyntaxKind.AsyncKeyword || ts.isAwaitExpression(node)) report(node, rule)
  if (ts.isIdentifier(node) && IMPURE.has(node.text) && !declared.has(node.text) && isReference(node))
    report(node, rule)
  if (ts.isIdentifier(node) && !declared.has(node.text) && isReference(node) && isImpureUse(node)) report(node, rule)
}

/** `Date` and `Math` have pure members too. Every use that could reach another member is impure. */
function isImpureUse(node: ts.Identifier): boolean {
  const { parent } = node
  const member = ts.isPropertyAccessExpression(parent) && parent.expression === node ? parent.name.text : undefined
  if (node.text === 'Math') return member === undefined || member === 'random'
  if (node.text !== 'Date' || ts.isTypeReferenceNode(parent)) return false
  if (ts.isNewExpression(parent)) return (parent.arguments?.length ?? 0) === 0
  if (ts.isBinaryExpression(parent)) return parent.operatorToken.kind !== ts.SyntaxKind.InstanceOfKeyword
  return member !== 'UTC' && member !== 'parse'
}

/** False for the name of a member. */
const isReference = (node: ts.Identifier): boolean =>
  !(ts.isPropertyAccessExpression(node.parent) && node.parent.name === node) &&
  !(ts.isPropertyAssignment(node.parent) && node.parent.name === node) &&
  !ts.isPropertySignature(node.parent) &&
  !ts.isMethodDeclaration(node.parent) &&
  !ts.isPropertyDeclaration(node.parent)

/** Imports that the import rule cannot read: a computed path, and `require`. */
function checkImports(file: string, node: ts.Node, report: Report): void {
  if (COMPUTED_IMPORT_EXEMPT.has(file)) return
  const rule = 'an import must name its module, because the import rule cannot follow a computed path'
  if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
    const [specifier] = node.arguments
    if (specifier === undefined || !ts.isStringLiteralLike(specifier)) report(node, rule)
  }
  if (ts.isIdentifier(node) && /^(createRequire|require)$/.test(node.text) && isReference(node)) report(node, rule)
}

/** The files that export a type of this name, each with the place of its declaration. */
const typeNames = new Map<string, { readonly file: string; readonly place: string }[]>()

function collectTypeNames(file: string, source: ts.SourceFile): void {
  for (const statement of source.statements) {
    const isType =
      ts.isTypeAliasDeclaration(statement) ||
      ts.isInterfaceDeclaration(statement) ||
      ts.isClassDeclaration(statement) ||
      ts.isEnumDeclaration(statement)
    if (!isType || statement.name === undefined || !isExported(statement)) continue
    const { line } = source.getLineAndCharacterOfPosition(statement.name.getStart(source))
    const places = typeNames.get(statement.name.text) ?? []
    typeNames.set(statement.name.text, [...places, { file, place: `${file}:${line + 1}` }])
  }
}

/** A reader who meets the name of a type must not have to ask which one. */
function checkTypeNames(): void {
  for (const places of typeNames.values())
    if (new Set(places.map(({ file }) => file)).size > 1)
      for (const { place } of places) violations.push(`${place}: another file exports a type of the same name`)
}

function checkFolders(): void {
  const count = new Map<string, number>()
  for (const file of files) count.set(dirname(file), (count.get(dirname(file)) ?? 0) + 1)
  for (const [folder, number] of count)
    if (number > MOST_FILES) violations.push(`${folder}: ${number} files, ${MOST_FILES} at most`)
}

const options = await extractDepcruiseOptions('./.dependency-cruiser.cjs')
const { output } = await cruise(['src'], options, {}, { tsConfig: extractTsConfig('./tsconfig.json') })
if (typeof output === 'string') throw new Error('dependency-cruiser returned a text in place of a result')
for (const { from, to, rule } of output.summary.violations) violations.push(`${from} -> ${to}: ${rule.name}`)
const read = output.modules.filter(({ source }) => source.startsWith('src/') && source.endsWith('.ts')).length
if (read < files.length)
  violations.push(
    `only ${read} of ${files.length} modules of src/ were read: the rules were not checked for the others`,
  )
if (files.length === 0) violations.push('src/ has no module, so nothing was checked')

for (const file of files) {
  const text = readFileSync(file, 'utf8')
  const lines = text.split('\n').length - 1
  if (lines > MOST_LINES) violations.push(`${file}: ${lines} lines, ${MOST_LINES} at most`)
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const report: Report = (node, rule) => {
    const { line } = source.getLineAndCharacterOfPosition(node.getStart(source))
    violations.push(`${file}:${line + 1}: ${rule}`)
  }
  const exported = source.statements.filter(isExported).length
  if (exported > 1 && !/^(?:#!.*\n)?\s*\/[*/]/.test(text)) violations.push(`${file}: ${NO_SUBJECT}`)
  checkReExports(file, source, report)
  checkNodes(file, source, report)
  collectTypeNames(file, source)
}
checkTypeNames()
checkFolders()

for (const line of violations) console.error(line)
console.log(`rooms: ${read} modules, ${violations.length} violations`)
process.exitCode = violations.length === 0 ? 0 : 1
